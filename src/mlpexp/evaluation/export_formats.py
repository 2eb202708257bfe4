"""The formats of exported networks: how the content of a file is made, and how it is evaluated.

Letters: B batch, J number columns, K category columns, C classes.
"""

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mlpexp.evaluation.export_module import ExportModule, metadata, output_names
from mlpexp.evaluation.trained_run import TrainedModel
from mlpexp.runtime.errors import UserError, first_line

Format = Literal["onnx", "torch", "safetensors"]
METADATA = "mlpexp.json"  # the name inside a .pt2 file

Raw = tuple[Tensor, ...]  # numbers (B, J) and, where there are categories, their indices (B, K) int64


def make(kind: Format, run: TrainedModel, raw: Raw) -> bytes:
    """The file's content; `raw` are example samples.

    Raises:
        UserError: `torch.export` cannot follow the network, such as one of the user's that branches on its values.
    """
    logging.getLogger("torch.fx.experimental.symbolic_shapes").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # the graph of what failed
        warnings.simplefilter("ignore")  # deprecations inside the exporters
        try:
            return FORMATS[kind].make(run, raw)
        except RuntimeError as error:
            reason = first_line(error.__cause__ or error).partition(". ")[0]
            raise UserError(
                f"--format {kind}: torch.export cannot follow the network ({reason}); predict.py can, and --format "
                "safetensors holds the weights of a single one"
            ) from error


def evaluate(kind: Format, content: bytes, run: TrainedModel, raw: Raw) -> Tensor:
    """The logits that the file gives for raw samples, (B, C)."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FORMATS[kind].evaluate(content, run, raw)


def _traceable(run: TrainedModel, raw: Raw) -> tuple[ExportModule, Raw, tuple[dict[int, Any], ...]]:
    """The module, an example (two samples: a batch of one would be specialised) and the axis that may vary."""
    batch = torch.export.Dim("batch", min=1)
    return ExportModule(run).eval(), tuple(tensor[:2].clone() for tensor in raw), tuple({0: batch} for _ in raw)


def _make_onnx(run: TrainedModel, raw: Raw) -> bytes:
    import onnx

    module, example, shapes = _traceable(run, raw)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        module,
        example,
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=["numbers", "categories"][: len(raw)],
        output_names=list(output_names(run)),
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    model.producer_name = "mlpexp"
    outputs = "values" if run.data.target_names else "probabilities of classes"
    model.doc_string = f"multilayer perceptron for {run.data.name}: raw samples in, {outputs} out"
    onnx.helper.set_model_props(model, metadata(run))
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _evaluate_onnx(content: bytes, run: TrainedModel, raw: Raw) -> Tensor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    inputs = {name: tensor.numpy() for name, tensor in zip(names, raw, strict=True)}
    return torch.from_numpy(session.run([output_names(run)[0]], inputs)[0])


def _make_torch(run: TrainedModel, raw: Raw) -> bytes:
    module, example, shapes = _traceable(run, raw)
    buffer = io.BytesIO()
    program = torch.export.export(module, example, dynamic_shapes=shapes)
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(metadata(run))})
    return buffer.getvalue()


def _evaluate_torch(content: bytes, run: TrainedModel, raw: Raw) -> Tensor:
    logits: Tensor = torch.export.load(io.BytesIO(content)).module()(*raw)[0]
    return logits


def _make_safetensors(run: TrainedModel, raw: Raw) -> bytes:
    from safetensors.torch import save

    content: bytes = save({name: t.contiguous() for name, t in run.module.state_dict().items()}, metadata(run))
    return content


def _evaluate_safetensors(content: bytes, run: TrainedModel, raw: Raw) -> Tensor:
    """The file's weights in the module that the other formats hold."""
    from safetensors.torch import load

    module = ExportModule(run)
    module.network = copy.deepcopy(run.module)
    module.network.load_state_dict(load(content))
    logits: Tensor = module(*raw)[0]
    return logits


class _Form(NamedTuple):
    """A file format: its suffix, the packages it needs, how it is made and how it is evaluated."""

    suffix: str
    packages: tuple[str, ...]
    make: Callable[[TrainedModel, Raw], bytes]
    evaluate: Callable[[bytes, TrainedModel, Raw], Tensor]


FORMATS: dict[Format, _Form] = {
    "onnx": _Form(".onnx", ("onnx", "onnxscript", "onnxruntime"), _make_onnx, _evaluate_onnx),
    "torch": _Form(".pt2", (), _make_torch, _evaluate_torch),
    "safetensors": _Form(".safetensors", ("safetensors",), _make_safetensors, _evaluate_safetensors),
}
