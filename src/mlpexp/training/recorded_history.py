"""Reads the history of a run that is continued, from its tables and its checkpoint."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mlpexp.nn.metric_columns import is_column
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.store import file_names, run_directory

Rows = list[list[float | str]]


class Recorded(NamedTuple):
    """A run up to its last checkpoint."""

    history: list[dict[str, float]]  # metrics by name of each epoch that is done
    layer_rows: Rows  # of `layers.csv`
    started: float  # seconds since 1970
    saved_at: float  # when the checkpoint was taken; what was recorded later is trained again


def recorded(directory: Path, path: Path, loaded: Mapping[str, Any]) -> Recorded:
    """The history of a run up to the checkpoint that was loaded from `path`.

    Raises:
        UserError: it is missing or damaged.
    """
    callbacks = loaded.get("callbacks")
    state = callbacks.get("Recorder") if isinstance(callbacks, dict) else None
    if not isinstance(state, dict):
        raise UserError(f"{path} was not written by mlpexp: it holds no history")
    if "epochs" not in state:
        return _recorded_before(path, state)
    epochs, moments = state["epochs"], (state.get("started"), state.get("saved_at"))
    sound = isinstance(epochs, int) and epochs >= 1 and loaded.get("epoch") in (epochs, epochs - 1)
    if not sound or not all(isinstance(moment, float) and math.isfinite(moment) for moment in moments):
        raise UserError(f"{path} is damaged: its history is not what mlpexp writes; train the run again")
    history, rows = read_tables(directory)
    if len(history) < epochs:
        raise UserError(
            f"{directory / file_names.METRICS} has {len(history)} epochs, but {file_names.LAST} is of epoch {epochs}; "
            "restore it, or train the run again"
        )
    rows = [row for row in rows if float(row[0]) < epochs]
    # as many rows for each epoch, and for the state before the first step
    per_epoch = sum(row[0] == 0 for row in rows)
    is_complete = len(rows) == per_epoch * (epochs + 1)
    return Recorded(history[:epochs], rows if is_complete else [], *moments)  # type: ignore[arg-type]


def _recorded_before(path: Path, state: Mapping[str, Any]) -> Recorded:
    """As `recorded`, for a version that kept the history in the checkpoint."""
    history: Any = state.get("history")
    wall_times: Any = state.get("wall_times")
    rows: Any = state.get("layer_rows")
    sound = (
        isinstance(history, list)
        and all(isinstance(row, dict) and row and all(map(is_column, row)) for row in history)
        and all(row.keys() == history[0].keys() for row in history)
        and all(isinstance(value, float) for row in history for value in row.values())
        and isinstance(wall_times, list)
        and len(wall_times) == len(history) + 1
        and all(isinstance(moment, float) and math.isfinite(moment) for moment in wall_times)
        and isinstance(saved_at := state.get("saved_at", wall_times[-1]), float)
        and isinstance(rows, list)
        and all(isinstance(row, list) and all(isinstance(cell, int | float | str) for cell in row) for row in rows)
    )
    if not sound:
        raise UserError(f"{path} is damaged: its history is not what mlpexp writes; train the run again")
    missing = len(run_directory.LAYER_NAMES)  # columns that came later are empty
    rows = [[*row, *[""] * (missing - len(row))] for row in rows]
    return Recorded(history, rows, wall_times[0], saved_at)


def read_tables(directory: Path) -> tuple[list[dict[str, float]], Rows]:
    """The history and the rows of the layers in a run's directory; no rows where it has none.

    Raises:
        UserError: they are missing, damaged, or not what the run's marker says.
    """
    metrics = directory / file_names.METRICS
    text = _read_compared(directory, file_names.METRICS)
    if text is None:
        raise UserError(f"{metrics} is missing: the epochs that are done are not known; train the run again")
    layers = _read_compared(directory, file_names.LAYERS)
    rows = [] if layers is None else run_directory.parse_layers(layers, directory / file_names.LAYERS)
    return run_directory.parse_metrics(text, metrics), rows


def _read_compared(directory: Path, name: str) -> str | None:
    """The text of a file of a run, compared with what the run's marker says; None where there is none."""
    try:
        content = safe_files.read_bytes(directory / name, run_directory.MAX_FILE, follow=False)
    except FileNotFoundError:
        return None
    run_directory.compare_with_marker(directory, name, content)
    return content.decode(errors="replace")
