"""A network as a table: its layers with their tensors, before anything is trained."""

from dataclasses import fields
from math import prod

from rich.markup import escape
from rich.table import Table

from mlpexp.nn.layers import LayerSpec
from mlpexp.nn.network import NetworkSpec


def table(network: NetworkSpec) -> Table:
    """A row for each layer: its kind and settings, its tensors by name, their parameters."""
    layers = Table(header_style="bold")
    for name in ("#", "layer", "tensors"):
        layers.add_column(name)
    layers.add_column("parameters", justify="right")
    for k, (layer, names) in enumerate(zip(network.layers, network.names, strict=True)):
        shapes = {**layer.shapes, **layer.buffers}
        tensors = "\n".join(f"{names.get(name, name)} {shape}" for name, shape in shapes.items())
        count = sum(prod(shape) for shape in layer.shapes.values())
        layers.add_row(str(k), escape(described(layer)), escape(tensors), f"{count:,}" if count else "")
    return layers


def described(layer: LayerSpec) -> str:
    """E.g. `Linear(inputs=64, outputs=50)`."""
    settings = ", ".join(f"{field.name}={getattr(layer, field.name)}" for field in fields(layer) if field.repr)  # type: ignore[arg-type]
    return f"{type(layer).__name__}({settings})"


def summary(network: NetworkSpec) -> str:
    """Units, parameters, memory, and the products of a forward pass, in one line."""
    units = "-".join(map(str, network.sizes))
    products = sum(prod(network.shapes[name]) for name in network.weight_names)
    memory = f"{4 * network.num_parameters / 1024:,.0f} KiB as float32"
    return f"{units}: {network.num_parameters:,} parameters ({memory}), {products:,} multiplications a sample"
