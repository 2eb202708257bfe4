"""The training states of runs as archives of tensors and plain builtins, for the files of `store.stack_states`.

They are read as checkpoints are: nothing in them is executed, and every value is checked.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.data.prepared_data import Prepared
from mlpexp.models.training_state import RunRecord, Snapshot, TrainingState
from mlpexp.nn.network import NetworkSpec
from mlpexp.runtime.errors import UserError
from mlpexp.store import checkpoint_files, stack_states


def save(sweep: Path, states: Mapping[str, TrainingState]) -> None:
    """Write the states of a stack's runs, by their identities, into a sweep's directory."""
    archive = checkpoint_files.to_bytes({"state_dict": {identity: _plain(state) for identity, state in states.items()}})
    histories = {identity: state.record.history for identity, state in states.items()}
    stack_states.write(sweep, {identity: (len(rows), rows[-1]) for identity, rows in histories.items()}, archive)


def load(sweep: Path, runs: Mapping[str, tuple[Config, Prepared]]) -> dict[str, TrainingState]:
    """The latest saved state of each run that has one, by identity.

    Args:
        runs: configuration and data of runs by their identities.
    """
    states: dict[str, TrainingState] = {}
    for path, header, archive in stack_states.read(sweep):
        later = [
            identity
            for identity in runs.keys() & header.runs.keys()
            if identity not in states or len(states[identity].record.history) < header.runs[identity].epochs
        ]
        if not later:
            continue
        try:
            loaded = checkpoint_files.from_bytes(path, archive)["state_dict"]
            states |= {identity: _state(loaded[identity], *runs[identity]) for identity in later}
        except (UserError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            stack_states.warn(path, error)
    return states


def _plain(state: TrainingState) -> dict[str, Any]:
    record = state.record
    names = list(dict.fromkeys(name for row in record.history for name in row))
    return {
        "metrics": names,
        "history": torch.tensor(
            [[row.get(name, math.nan) for name in names] for row in record.history], dtype=torch.float64
        ),
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
    layer_rows = TypeAdapter(list[list[int | float | str]]).validate_python(plain["layer_rows"])
    record = RunRecord.of(cfg, [dict(zip(names, row, strict=True)) for row in rows.tolist()], layer_rows)
    network = cfg.model.network(data.num_inputs, data.num_classes)
    return TrainingState(
        record=record,
        best=_snapshot(plain["best"], network),
        last=_snapshot(plain["last"], network),
        wall_times=times.tolist(),
        seconds=float(plain["seconds"]),
    )


def _snapshot(plain: Mapping[str, Any], network: NetworkSpec) -> Snapshot:
    def checked(tensors: Iterable[Any], shapes: Mapping[str, tuple[int, ...]]) -> list[Tensor]:
        values = list(tensors)
        for tensor, shape in zip(values, shapes.values(), strict=True):
            _check_tensor(tensor, (1, *shape), torch.float32)
        return values

    values = checked((plain["parameters"][name] for name in network.tensors), network.tensors)
    state = {str(name): checked(tensors, network.shapes) for name, tensors in plain["state"].items()}
    return Snapshot(dict(zip(network.tensors, values, strict=True)), state)


def _check_tensor(tensor: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise ValueError(f"a tensor of shape {shape} was expected")
    if tensor.device.type != "cpu" or tensor.layout != torch.strided or not tensor.is_contiguous():
        raise ValueError("a tensor is not stored plainly")
