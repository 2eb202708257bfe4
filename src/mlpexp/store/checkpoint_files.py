"""Checkpoints as data: written in Lightning's format from tensors and plain builtins, and checked when read.

Nothing in a file is ever executed or instantiated: it is loaded with `weights_only=True`, every value is
checked, and the network is rebuilt from the checked configuration.
"""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlpexp.config import checks
from mlpexp.config.schema import Config
from mlpexp.data.data_description import Description
from mlpexp.nn import user_class
from mlpexp.nn.network import NetworkSpec
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import ConfigError, UserError
from mlpexp.store import atomic_files, run_weights
from mlpexp.store.file_names import BEST, LAST
from mlpexp.store.run_directory import compare_with_marker
from mlpexp.store.run_weights import Weights

MAX_FEATURES = 1_000_000
MAX_BYTES = 2**33  # of a file; read into memory as a whole
WITHOUT_OPTIMIZER = ("state_dict", "callbacks", "hyper_parameters")  # what evaluation needs of a checkpoint


def to_bytes(checkpoint: Mapping[str, Any]) -> bytes:
    """`torch.save` into memory; slices of larger tensors must be clones, or the whole is saved with them."""
    buffer = io.BytesIO()
    torch.save(dict(checkpoint), buffer)
    return buffer.getvalue()


def save(path: Path, content: bytes) -> None:
    atomic_files.make_directory(path.parent)
    atomic_files.write(path, content)


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, as tensors and plain builtins.

    Raises:
        UserError: missing, a directory, empty, truncated, another type of file, holding code, or not what
            the run's marker says.
    """
    if path.is_dir():
        inside = next((path / name for name in (BEST, LAST) if (path / name).is_file()), None)
        hint = f"did you mean {inside}?" if inside else "it holds no checkpoints/best.ckpt"
        raise UserError(f"{path} is a directory, not a checkpoint; {hint}")
    content = read(path)
    if content:
        compare_with_marker(path.parent.parent, f"{path.parent.name}/{path.name}", content)
    return from_bytes(path, content)


def read(path: Path) -> bytes:
    """The bytes of a checkpoint; for a run without a directory, from the sweep's file of weights.

    Raises:
        UserError: there is none, or the sweep's weights are damaged.
    """
    try:
        return safe_files.read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        if (content := run_weights.read(path)) is not None:
            return content
        raise UserError(
            f"{path} does not exist; give a checkpoint, e.g. outputs/DATE/TIME/checkpoints/best.ckpt"
        ) from None


def from_bytes(path: Path, content: bytes) -> dict[str, Any]:
    """Read what `to_bytes` has written, as tensors and plain builtins; `path` is named in messages.

    Raises:
        UserError: empty, truncated, another type of file, or holding code.
    """
    if not content:
        raise UserError(f"{path} is empty; train the run again")
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise UserError(f"{path} is truncated or no checkpoint of torch's; train the run again")
    if _is_compressed(content):  # torch never does that: a few bytes could become all the memory there is
        raise UserError(f"{path} is compressed, which no checkpoint of torch's is; it was not opened")
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds objects or code beside tensors; it was not opened, because that could run anything"
        ) from None
    except Exception as error:  # torch.load raises many kinds on damaged files
        raise UserError(f"{path} is damaged ({type(error).__name__}); train the run again") from error
    if not isinstance(loaded, dict) or not isinstance(loaded.get("state_dict"), dict):
        raise UserError(f"{path} is no checkpoint of Lightning's: it has no state_dict")
    return loaded


def described(path: Path, loaded: Mapping[str, Any]) -> tuple[Config, int, int]:
    """The checked configuration in a checkpoint, its number of features and of classes.

    Raises:
        UserError: the hyperparameters are missing or impossible.
    """
    plain = loaded.get("hyper_parameters")
    if not isinstance(plain, dict) or not isinstance(plain.get("config"), dict):
        raise UserError(f"{path} was not written by mlpexp: it holds no configuration")
    numbers = [plain.get("num_features"), plain.get("num_classes")]
    if not all(isinstance(number, int) and 1 <= number <= MAX_FEATURES for number in numbers):
        raise UserError(f"{path}: num_features and num_classes are {numbers}; they must be whole numbers >= 1")
    try:
        cfg = checks.from_plain(plain["config"])
    except ConfigError as error:
        raise UserError(f"{path} holds an impossible configuration: {error.problems[0]}") from error
    except UserError as error:  # of a plugin
        raise UserError(f"{path} cannot be used without its plugin: {error}") from error
    if cfg.model.target is not None:
        try:
            user_class.check_name(cfg.model.target)
        except UserError as error:
            raise UserError(f"{path} holds an impossible configuration: {error}") from error
    return cfg, numbers[0], numbers[1]  # type: ignore[return-value]


def described_data(path: Path, loaded: Mapping[str, Any]) -> Description:
    """The description of the data in a checkpoint: how raw samples become inputs, the names of the classes.

    Raises:
        UserError: it says nothing, or what it says does not fit its network.
    """
    cfg, num_features, num_classes = described(path, loaded)
    try:
        data = Description.from_plain(loaded["hyper_parameters"].get("data"))
    except ValueError as error:
        raise UserError(f"{path}: {error}; train the run again") from error
    sizes = data.features.num_inputs, data.num_outputs
    if sizes != (num_features, num_classes):
        raise UserError(
            f"{path} describes data of {sizes[0]} features and {sizes[1]} classes, but its network has "
            f"{num_features} and {num_classes}; train the run again"
        )
    if bool(data.target_names) != (cfg.data.learns == "regression"):
        raise UserError(f"{path} describes other data than its configuration; train the run again")
    return data


def check_weights(path: Path, weights: Mapping[str, Any], network: NetworkSpec) -> dict[str, Tensor]:
    """Check every name, shape and number of a state dict against the network, and return it.

    Raises:
        UserError: naming the first tensor that is missing, unknown, of another shape, or not finite.
    """
    expected = network.tensors
    if missing := sorted(expected.keys() - weights.keys()):
        raise UserError(f"{path} lacks the tensor {missing[0]}")
    if extra := sorted(map(str, weights.keys() - expected.keys())):
        raise UserError(f"{path} has the tensor {extra[0]}, which the network does not know")
    for name, shape in expected.items():
        tensor = weights[name]
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
            kind = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise UserError(f"{path}: {name} is {kind}, but the configuration says {shape}")
        if not _is_plain(tensor):
            raise UserError(f"{path}: {name} is no plain tensor of floating-point numbers")
        if not torch.isfinite(tensor).all():
            raise UserError(f"{path}: {name} holds NaN or infinite numbers; the run has diverged")
    return dict(weights)


def tested_checkpoint(run: Path) -> Weights | None:
    """The checkpoint with which a run in its directory was tested, without its optimizer; None where there is none."""
    names = [name for name in (BEST, LAST) if (run / name).is_file()]
    for name in names:
        content = load(run / name)
        is_last = content["hyper_parameters"]["config"].get("test_weights") == "last"
        if (name == LAST) == is_last or len(names) == 1:
            return Weights(name, to_bytes({key: content[key] for key in WITHOUT_OPTIMIZER if key in content}))
    return None


def _is_plain(tensor: Tensor) -> bool:
    """Whether every number of the tensor is in the file: dense, contiguous, floating-point."""
    return (
        tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and tensor.dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
        and tensor.is_contiguous()
    )


def _is_compressed(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False  # damaged; torch raises on it
