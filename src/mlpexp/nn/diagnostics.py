"""Gradients, weights and activations of each layer, on one fixed batch before the first step and after each epoch.

Letters: R runs (the axis may be absent), L layers, H hidden layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from mlpexp.nn.layers import Activate
from mlpexp.nn.lazy_torch import Tensor, torch
from mlpexp.nn.losses import CROSS_ENTROPY, LossFunction
from mlpexp.nn.network import Gradients, NetworkSpec, backward, forward

START = -1  # the epoch of the state before training
PROBE_SAMPLES = 256  # the first ones of the training part
SATURATED = 0.05  # of the activation's steepest slope: a unit with a smaller slope counts as saturated


class LayerNumbers(NamedTuple):
    """One row of the run's `layers.csv` for each layer, with a column for each field after epoch and layer."""

    gradient_norm: Tensor  # (R, L): Euclidean, of the mean loss by the weight
    weight_norm: Tensor  # (R, L): Euclidean
    saturated: Tensor  # (R, H): share of (sample, unit) pairs with a slope, of the gate, below 5 % of the steepest
    activation_mean: Tensor  # (R, H): over the same pairs
    activation_std: Tensor  # (R, H): their standard deviation
    gradient_std: Tensor  # (R, L): of a sample's loss by a unit's value before its activation, over the pairs

    def rows(self, epoch: int) -> Iterator[list[list[float | str]]]:
        """For each run its rows: epoch, layer, the numbers; empty texts where the last layer has no activation."""
        layers = self.gradient_norm.shape[-1]
        joined = torch.cat(self, -1)  # one transfer from the device
        for numbers in joined.reshape(-1, joined.shape[-1]).tolist():
            remaining = iter(numbers)
            columns: list[list[float | str]] = [list(islice(remaining, column.shape[-1])) for column in self]
            padded = [column + [""] * (layers - len(column)) for column in columns]
            yield [[epoch, i, *row] for i, row in enumerate(zip(*padded, strict=True))]


LAYER_COLUMNS = LayerNumbers._fields


def inspect(
    network: NetworkSpec,
    parameters: Mapping[str, Tensor],
    inputs: Tensor,
    labels: Tensor,
    loss: LossFunction = CROSS_ENTROPY,
) -> tuple[LayerNumbers, Gradients]:
    """The numbers of each dense layer, and the gradients from which they are computed.

    Batch normalisation uses the statistics of these samples, as in training; dropout is left out.

    Args:
        inputs: (R, B, I); labels: (R, B), in a regression (R, B, C).
        loss: the one that is minimised.
    """
    with torch.no_grad():
        parameters = {name: parameters[name] for name in network.shapes}  # without running statistics
        # double precision where trained so, but no less than single precision
        dtype = torch.promote_types(next(iter(parameters.values())).dtype, torch.float32)
        parameters = {name: values.to(dtype) for name, values in parameters.items()}
        inputs = inputs.to(dtype)
        trace = forward(network, parameters, inputs)
        samples = inputs.shape[-2]
        upstream = loss.gradient(trace.logits, loss.dense(labels, trace.logits))
        gradients = backward(network, parameters, trace, upstream)
        weights = [network.names[k]["weight"] for k, _ in network.linear]
        shares, activations = [], []
        for k, layer in enumerate(network.layers):
            if isinstance(layer, Activate):
                h = trace.values[k + 1]
                flat = layer.slope(trace.values[k], h).abs() < SATURATED * layer.entry.steepest
                shares.append(flat.flatten(-2).to(inputs.dtype).mean(-1))
                activations.append(h)
        numbers = LayerNumbers(
            gradient_norm=torch.stack([gradients.parameters[name].flatten(-2).norm(dim=-1) for name in weights], -1),
            weight_norm=torch.stack([parameters[name].flatten(-2).norm(dim=-1) for name in weights], -1),
            saturated=_columns(shares, inputs),
            activation_mean=_columns([h.mean((-2, -1)) for h in activations], inputs),
            activation_std=_columns([_spread(h) for h in activations], inputs),
            gradient_std=_columns([samples * _spread(gradients.outputs[k]) for k, _ in network.linear], inputs),
        )
        return numbers, gradients


def _spread(values: Tensor) -> Tensor:
    """The standard deviation over samples and units, (R,)."""
    return values.std((-2, -1), correction=0)


def _columns(per_layer: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """Values (R,) of each layer as columns (R, layers); no column in a linear classifier."""
    return torch.stack(list(per_layer), -1) if per_layer else inputs.new_zeros((*inputs.shape[:-2], 0))
