"""A trained network as a file for other programs, held against the network itself before it is written."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlpexp import data
from mlpexp.evaluation import locate_run, trained_run
from mlpexp.evaluation.export_module import Whole
from mlpexp.evaluation.locate_run import Weights
from mlpexp.evaluation.trained_run import Trained
from mlpexp.runtime import software_versions
from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files, run_directory

Format = Literal["onnx", "torch", "safetensors"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}
NEEDED: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch": (),
    "safetensors": ("safetensors",),
}
TOLERANCE = 1e-5  # of logits, relative to the largest one: other kernels sum in another order
CHECKED = 1_000  # samples at most
METADATA = "mlpexp.json"  # in a .pt2 file

Raw = tuple[Tensor, ...]  # numbers (m, J) float32 and, where there are categories, their places (m, K) int64


class ExportFailed(Exception):
    """The file would not say what the network says."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        difference: the largest between the file's logits and the network's, relative to the largest logit.
        checked: samples that were compared; drawn: they were made up, because the run's data is not there.
    """

    run: Trained
    path: Path
    size: int
    difference: float
    checked: int
    drawn: bool


def export(
    path: Path, kind: Format, out: Path | None = None, weights: Weights | None = None, *, force: bool = False
) -> Exported:
    """Write the network that `path` means (see `places.find`) as `kind`; `model.*` in the run's directory by default.

    Raises:
        UserError: the run cannot be used, `out` cannot be written, a package is missing.
        ExportFailed: the file's answers are not the network's; nothing was written.
    """
    for package in NEEDED[kind]:
        try:
            import_module(package)
        except ImportError:
            raise UserError(f"--format {kind} needs the package {package}: pip install 'mlpexp[export]'") from None
    run = trained_run.load(path, weights)
    target = out or run.place.folder / f"{run.place.stem}{SUFFIXES[kind]}"
    locate_run.check_new(target, force=force)
    raw, expected, drawn = _questions(run)
    content = make(kind, run, raw)
    difference = _compare(kind, content, run, raw, expected)
    atomic_files.write(target, content)
    return Exported(run=run, path=target, size=len(content), difference=difference, checked=len(expected), drawn=drawn)


def metadata(run: Trained) -> dict[str, str]:
    """What the file says of itself; each value is a text, most of them JSON."""
    described = run.data
    shape = list(described.image_shape) if described.image_shape else None
    content: dict[str, Any] = {
        "class_names": described.class_names,
        "number_columns": described.features.names,
        "category_columns": dict(zip(described.features.category_names, described.features.values, strict=True)),
        "data": {"name": described.name, "sha256": described.digest, "image_shape": shape},
        "features": described.features.to_plain(),
        "network": {"sizes": run.module.sizes, "activation": run.cfg.model.activation},
        "checkpoint": {"sha256": run.sha256, "epoch": run.epoch, "weights": run.place.weights},
        "metrics": run.result.metrics if run.result and run.result.epoch == run.epoch else {},
        "versions": software_versions.versions(),
        "schema_version": run_directory.SCHEMA_VERSION,
    }
    return {key: json.dumps(value, ensure_ascii=False, sort_keys=True) for key, value in content.items()}


def _questions(run: Trained) -> tuple[Raw, Tensor, bool]:
    """Raw samples, and the network's own logits for them (m, C) by way of `Features.transform`, which is numpy's."""
    features = run.data.features
    numbers: NDArray[Any]
    categories: NDArray[np.object_] | None = None
    drawn = False
    try:
        table = data.load(run.cfg.data)
        if table.digest != run.data.digest:
            raise UserError("the data has changed")
        numbers, categories = table.inputs[:CHECKED], table.categories
        categories = None if categories is None else categories[:CHECKED]
    except (UserError, OSError):  # its file is gone, or another one: the check needs samples, not these
        rng = np.random.default_rng(0)
        drawn = True
        numbers = features.shift + rng.uniform(-1, 1, (CHECKED, len(features.names))) * features.scale
        if features.values:
            categories = np.array([[rng.choice(values) for values in features.values] for _ in numbers], dtype=object)
    numbers = np.asarray(numbers, dtype=np.float32)  # as it will be given
    inputs = torch.from_numpy(features.transform(numbers, categories)).to(run.module.parameter_layers()[0].weight.dtype)
    expected: Tensor = run.module(inputs)
    raw: Raw = (torch.from_numpy(numbers),)
    if categories is not None and features.values:
        raw = (*raw, torch.from_numpy(_places(categories, features.values, features.category_fill)))
    return raw, expected.float(), drawn


def _places(categories: NDArray[np.object_], values: Sequence[Sequence[str]], fill: Sequence[str]) -> NDArray[np.int64]:
    """Of each category among its column's values, (m, K); -1 for one that is not among them."""
    found = np.full(categories.shape, -1, dtype=np.int64)
    for k, known in enumerate(values):
        place = {value: i for i, value in enumerate(known)}
        missing = place.get(fill[k], -1) if fill else -1
        found[:, k] = [missing if value is None else place.get(value, -1) for value in categories[:, k]]
    return found


def make(kind: Format, run: Trained, raw: Raw) -> bytes:
    """The file's content; `raw` are samples as an example."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        return WAYS[kind][0](run, raw)


def ask(kind: Format, content: bytes, run: Trained, raw: Raw) -> Tensor:
    """The logits that the file gives for raw samples, (m, C)."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WAYS[kind][1](content, run, raw)


def _compare(kind: Format, content: bytes, run: Trained, raw: Raw, expected: Tensor) -> float:
    """The largest relative difference, in batches of several sizes."""
    largest = max(float(expected.abs().max()), 1e-30)
    worst = 0.0
    for count in dict.fromkeys((1, min(7, len(expected)), len(expected))):
        found = ask(kind, content, run, tuple(part[:count] for part in raw))
        if found.shape != expected[:count].shape:
            raise ExportFailed(f"for {count} samples it answers {tuple(found.shape)}; nothing was written")
        worst = max(worst, float((found - expected[:count]).abs().max()) / largest)
    if not worst <= TOLERANCE:  # NaN too
        raise ExportFailed(f"its answers differ from the network's by {worst:.1e} (relative); nothing was written")
    return worst


def _program(run: Trained, raw: Raw) -> tuple[Whole, Raw, tuple[dict[int, Any], ...]]:
    """The module, an example (two samples, since one is special to the tracer) and which axis may have any length."""
    batch = torch.export.Dim("batch", min=1)
    return Whole(run).eval(), tuple(part[:2].clone() for part in raw), tuple({0: batch} for _ in raw)


def _make_onnx(run: Trained, raw: Raw) -> bytes:
    import onnx

    whole, example, shapes = _program(run, raw)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        whole,
        example,
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=["numbers", "categories"][: len(raw)],
        output_names=["logits", "probabilities"],
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    model.producer_name = "mlpexp"
    model.doc_string = f"multilayer perceptron for {run.data.name}: raw samples in, probabilities of classes out"
    onnx.helper.set_model_props(model, metadata(run))
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _ask_onnx(content: bytes, run: Trained, raw: Raw) -> Tensor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return torch.from_numpy(
        session.run(["logits"], {name: part.numpy() for name, part in zip(names, raw, strict=True)})[0]
    )


def _make_torch(run: Trained, raw: Raw) -> bytes:
    whole, example, shapes = _program(run, raw)
    buffer = io.BytesIO()
    program = torch.export.export(whole, example, dynamic_shapes=shapes)
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(metadata(run))})
    return buffer.getvalue()


def _ask_torch(content: bytes, run: Trained, raw: Raw) -> Tensor:
    logits: Tensor = torch.export.load(io.BytesIO(content)).module()(*raw)[0]
    return logits


def _make_safetensors(run: Trained, raw: Raw) -> bytes:
    from safetensors.torch import save

    content: bytes = save({name: t.contiguous() for name, t in run.module.state_dict().items()}, metadata(run))
    return content


def _ask_safetensors(content: bytes, run: Trained, raw: Raw) -> Tensor:
    """Its weights in the same graph that the other formats hold."""
    from safetensors.torch import load

    whole = Whole(run)
    tensors = load(content)
    for i in range(whole.num_layers):
        setattr(whole, f"weight_{i}", tensors[f"layers.{i}.weight"])
        setattr(whole, f"bias_{i}", tensors[f"layers.{i}.bias"])
    logits: Tensor = whole(*raw)[0]
    return logits


WAYS: dict[Format, tuple[Callable[[Trained, Raw], bytes], Callable[[bytes, Trained, Raw], Tensor]]] = {
    "onnx": (_make_onnx, _ask_onnx),
    "torch": (_make_torch, _ask_torch),
    "safetensors": (_make_safetensors, _ask_safetensors),
}
