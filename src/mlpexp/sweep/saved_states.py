"""States of stacks on disk: what a sweep that was stopped, in whatever way, continues from.

One file per stack in `.stacks` of the sweep's directory, replaced as a whole and removed when its runs are written:

    SHA-256 of the rest
    {"schema_version": 1, "runs": {IDENTITY: {"epochs": epochs done, "metrics": of the last epoch}, …}}
    archive of `torch.save` with tensors and plain builtins only

A run is found by its identity, so that stacks may be formed differently after a restart. Of two states of a run the
later one counts. Files are read as checkpoints are: nothing in them is executed, and every value is checked.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt, TypeAdapter
from pydantic.dataclasses import dataclass
from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.data.prepared_data import Prepared
from mlpexp.models.training_state import RunRecord, Snapshot, TrainingState
from mlpexp.nn.early_stopping import Progress
from mlpexp.nn.network import NetworkSpec
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_files import read_bytes
from mlpexp.store import atomic_files, checkpoint_files

SUFFIX = ".state"
SCHEMA_VERSION = 1
log = logging.getLogger(__name__)

Wanted = Mapping[str, tuple[Config, Prepared]]
"""configuration and data of runs by their identity"""


@dataclass(kw_only=True, frozen=True)
class SavedRun:
    """What a file says of a run beside its tensors."""

    epochs: PositiveInt
    metrics: dict[str, float | None]
    """of the last epoch; None where a value is not finite"""


@dataclass(kw_only=True, frozen=True)
class Header:
    """The line of JSON at the start of a file."""

    schema_version: int
    runs: dict[str, SavedRun]
    """by identity"""


def save(folder: Path, states: Mapping[str, TrainingState]) -> None:
    """Write the states of a stack's runs, by identity, in place of what was saved of the same runs before."""
    atomic_files.make_directory(folder)
    runs = {
        identity: {
            "epochs": len(state.record.history),
            "metrics": {k: v if math.isfinite(v) else None for k, v in state.record.history[-1].items()},
        }
        for identity, state in states.items()
    }
    header = json.dumps({"schema_version": SCHEMA_VERSION, "runs": runs}, allow_nan=False)
    archive = checkpoint_files.to_bytes({"state_dict": {one: _plain(state) for one, state in states.items()}})
    content = header.encode() + b"\n" + archive
    seal = hashlib.sha256(content).hexdigest().encode()
    # a state takes the place of the one before, so that it must be on the disk before that is gone
    atomic_files.write(folder / _name(states), seal + b"\n" + content, durable=True)


def exist(folder: Path) -> bool:
    """Whether any state is saved in a folder."""
    return any(True for _ in _files(folder))


def saved_runs(folder: Path) -> dict[str, SavedRun]:
    """What is saved of each run, by its identity, without its tensors."""
    found: dict[str, SavedRun] = {}
    for path in _files(folder):
        if (read := _read(path)) is not None:
            for identity, run in read[0].runs.items():
                if identity not in found or found[identity].epochs < run.epochs:
                    found[identity] = run
    return found


def epochs_done(folder: Path) -> dict[str, int]:
    """Epochs that are saved of each run, by its identity."""
    return {identity: run.epochs for identity, run in saved_runs(folder).items()}


def load(folder: Path, wanted: Wanted) -> dict[str, TrainingState]:
    """The latest saved state of each of these runs that has one."""
    found: dict[str, TrainingState] = {}
    for path in _files(folder):
        if (read := _read(path)) is None:
            continue
        header, archive = read
        later = [
            one
            for one in wanted.keys() & header.runs.keys()
            if one not in found or len(found[one].record.history) < header.runs[one].epochs
        ]
        if not later:
            continue
        try:
            loaded = checkpoint_files.from_bytes(path, archive)["state_dict"]
            found |= {one: _state(loaded[one], *wanted[one]) for one in later}
        except (UserError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            _warn(path, error)
    return found


def remove(folder: Path, ended: Iterable[str]) -> None:
    """Remove the states of runs that have ended, by identity; files that hold another run's state stay."""
    ended = set(ended)
    for path in _files(folder):
        read = _read(path)
        if read is not None and read[0].runs.keys() <= ended:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty, or absent
        folder.rmdir()


def _name(identities: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(identities)).encode()).hexdigest()[:20] + SUFFIX


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_symlink():
        raise UserError(f"{folder} is a symbolic link; nothing is read or written through it: move it away")
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.name[0] != ".")


def _read(path: Path) -> tuple[Header, bytes] | None:
    """The header and the archive of a file; None, with a warning, where it is damaged.

    Raises:
        UserError: it is no regular file, or the system refuses to read it.
    """
    try:
        content = read_bytes(path, checkpoint_files.MAX_BYTES, follow=False)
    except FileNotFoundError:
        return None  # its stack has just been written
    try:
        seal, _, content = content.partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != seal:
            raise ValueError("its checksum does not match")
        header, _, archive = content.partition(b"\n")
        found = TypeAdapter(Header).validate_json(header)
        if found.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema version {found.schema_version}; this mlpexp knows {SCHEMA_VERSION}")
    except ValueError as error:
        _warn(path, error)
        return None
    return found, archive


def _warn(path: Path, error: Exception) -> None:
    reason = " ".join(str(error).split())
    log.warning("%s cannot be used (%s); its runs train from their beginning", path, reason)


def _plain(state: TrainingState) -> dict[str, Any]:
    record = state.record
    names = list(record.history[0]) if record.history else []
    return {
        "metrics": names,
        "history": torch.tensor([[row[name] for name in names] for row in record.history], dtype=torch.float64),
        "layer_rows": record.layer_rows,
        "wall_times": torch.tensor(state.wall_times, dtype=torch.float64),
        "seconds": state.seconds,
        "best": vars(state.best),
        "last": vars(state.last),
    }


def _state(plain: Mapping[str, Any], cfg: Config, data: Prepared) -> TrainingState:
    """The state that a file describes, every part of it checked against the run's configuration.

    Raises:
        ValueError: it is not a state of this run.
    """
    names, rows, times = plain["metrics"], plain["history"], plain["wall_times"]
    _check_tensor(rows, (len(rows), len(names)), torch.float64)
    _check_tensor(times, (len(rows) + 1,), torch.float64)
    if not 0 < len(rows) <= cfg.trainer.max_epochs or cfg.monitor not in names:
        raise ValueError(f"it holds {len(rows)} epochs of {names}")
    record = RunRecord(Progress.of(cfg.monitor, cfg.early_stopping), layer_rows=_layer_rows(plain["layer_rows"]))
    for epoch, row in enumerate(rows.tolist()):
        record.history.append(dict(zip(names, row, strict=True)))
        record.progress.update(epoch, record.history[-1][cfg.monitor])
    network = cfg.model.network(data.num_inputs, data.num_classes)
    return TrainingState(
        record=record,
        best=_snapshot(plain["best"], network),
        last=_snapshot(plain["last"], network),
        wall_times=times.tolist(),
        seconds=float(plain["seconds"]),
    )


def _snapshot(plain: Mapping[str, Any], network: NetworkSpec) -> Snapshot:
    def checked(tensors: Iterable[Any]) -> list[Tensor]:
        found = []
        for tensor, shape in zip(tensors, network.shapes.values(), strict=True):
            _check_tensor(tensor, (1, *shape), torch.float32)
            found.append(tensor)
        return found

    values = checked(plain["parameters"][name] for name in network.shapes)
    state = {str(name): checked(tensors) for name, tensors in plain["state"].items()}
    return Snapshot(dict(zip(network.shapes, values, strict=True)), state)


def _check_tensor(tensor: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise ValueError(f"a tensor of shape {shape} was expected")
    if tensor.device.type != "cpu" or tensor.layout != torch.strided or not tensor.is_contiguous():
        raise ValueError("a tensor is not stored plainly")


def _layer_rows(rows: Any) -> list[list[float | str]]:
    return TypeAdapter(list[list[float | str]]).validate_python(rows)
