"""Sweeps that nobody trained: directories with the files of a real sweep, written by the code that writes those."""

import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlpexp.config import run_names
from mlpexp.store import file_names, results_table, run_directory
from mlpexp.store.run_directory import Result

VERSIONS = {"python": "3.11.7", "mlpexp": "0.1.0", "torch": "2.13.0", "lightning": "2.6.6"}
EPOCHS = 10
WORTH = {"tanh": 0.0, "relu": 0.012, "gelu": 0.016}


def depth_and_width(settings: Mapping[str, Any]) -> float:
    """The accuracy that a configuration would have without noise; depth and activation act together."""
    depth, width = settings.get("model.depth", 1), settings.get("model.width", 32)
    width = width if isinstance(width, int) else 32
    activation = settings.get("model.activation", "tanh")
    good = 0.90 + 0.02 * math.log2(width / 32 + 1) + WORTH.get(activation, 0.0)
    return good - 0.004 * (depth - 2) ** 2 - (0.02 if depth == 3 and activation == "tanh" else 0)


def write(
    directory: Path,
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]],
    *,
    truth: Callable[[Mapping[str, Any]], float] = depth_and_width,
    noise: float = 0.006,
    status: Callable[[int, Mapping[str, Any]], str] = lambda number, settings: "ok",
    layers: bool = False,
    test: bool = True,
    files: bool = True,
    message: str = "diverged in epoch 3: the loss is no longer finite",
    digest: str = "09f66e6d" * 8,
    random: int = 0,
) -> Path:
    """A sweep over `grid`, the product of each key's values, or a list of settings.

    Args:
        status: of each run by number and settings; `missing` writes no row at all.
        files: also the runs' directories, not results.csv alone.
    """
    if isinstance(grid, Mapping):
        jobs = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    else:
        jobs = [dict(settings) for settings in grid]
    rng = np.random.default_rng(random)
    directory.mkdir(parents=True, exist_ok=True)
    rows: list[results_table.Row] = []
    for number, settings in enumerate(jobs):
        overrides = [f"{key}={value}" for key, value in settings.items()]
        name, state = run_names.run_name(overrides), status(number, settings)
        if state == "missing":
            continue
        accuracy = truth(settings) + 0.3 * noise * math.sin(7.0 * settings.get("seed", 0))
        val, tested = (round((accuracy + noise * float(rng.normal())) * 270) / 270 for _ in range(2))
        history = _history(rng, val, diverged=state == "diverged")
        result = (
            None if state == "failed" else _result(state, history, tested if test else None, settings, digest, message)
        )
        rows.append((number, name, overrides, result, message if state == "failed" else ""))
        if files:
            _run(directory / name, overrides, history, result, layers, rng)
    (directory / file_names.RESULTS).write_text("".join(results_table.table_parts(rows)), encoding="utf-8")
    return directory


def _run(
    place: Path,
    overrides: list[str],
    history: list[dict[str, float]],
    result: Result | None,
    layers: bool,
    rng: np.random.Generator,
) -> None:
    (place / ".hydra").mkdir(parents=True)
    text = "".join(f"- {_yaml(item)}\n" for item in overrides)
    (place / ".hydra" / "overrides.yaml").write_text(text, encoding="utf-8")
    (place / ".hydra" / "config.yaml").write_text(
        "seed: 0\ndata:\n  name: digits\n  split: stratified\n", encoding="utf-8"
    )
    if result is None:
        return
    (place / file_names.METRICS).write_text(run_directory.metrics_csv(history), encoding="utf-8")
    if layers:
        rows = [
            (epoch, layer, 0.5 * 0.6**layer * (1 + 0.1 * rng.normal()), 2.0, *inside, 0.01)
            for epoch in range(-1, EPOCHS)
            for layer in range(3)
            for inside in [(0.1 * layer, 0.0, 0.5) if layer < 2 else ("", "", "")]
        ]
        (place / file_names.LAYERS).write_text(run_directory.layers_csv(rows), encoding="utf-8")
    written = [name for name in (file_names.METRICS, file_names.LAYERS) if (place / name).exists()]
    run_directory.write_result(place, replace(result, files=run_directory.checksums(place, written)))


def _yaml(text: str) -> str:
    return "'" + text.replace("'", "''") + "'" if set(text) & set("'\"{}[]:#&*!|>%@`<") else text


def _history(rng: np.random.Generator, final: float, *, diverged: bool) -> list[dict[str, float]]:
    speed = 1 - np.exp(-(np.arange(EPOCHS) + 1) / 2.5)
    acc = 0.1 + (final - 0.1) * speed / speed[-1]
    loss = 2.3 - (2.3 - 3 * (1 - final)) * speed / speed[-1]
    found = [
        {
            "train/loss": float(l) * 0.9,
            "train/acc": min(1.0, float(a) + 0.01),
            "val/loss": float(l),
            "val/acc": float(a),
        }
        for l, a in zip(loss, acc, strict=True)
    ]
    found[-1]["val/acc"] = final
    if diverged:
        for row in found[3:]:
            row.update(dict.fromkeys(row, math.nan))
    return found


def _result(
    state: str,
    history: list[dict[str, float]],
    tested: float | None,
    settings: Mapping[str, Any],
    digest: str,
    message: str,
) -> Result:
    epoch = 2 if state == "diverged" else EPOCHS - 1
    metrics = dict(history[epoch])
    if tested is not None:
        metrics |= {"test/loss": 3 * (1 - tested), "test/acc": tested}
    depth, width = settings.get("model.depth", 1), settings.get("model.width", 32)
    width = width if isinstance(width, int) else 32
    size = 65 * width + (depth - 1) * (width + 1) * width + (width + 1) * 10
    return Result(
        status=state,  # type: ignore[arg-type]
        metrics=metrics,
        objective=metrics["val/loss"],
        monitor="val/loss",
        epoch=epoch,
        epochs=EPOCHS,
        identity=hashlib.sha256(repr(sorted(settings.items(), key=str)).encode()).hexdigest(),
        data_digest=digest,
        seconds={"fit": 0.004 * depth * (1 + width / 64), "total": 0.01},
        versions=VERSIONS,
        git_commit="60592bf" * 5 + "abcde",
        message=message if state in ("diverged", "chance") else None,
        num_parameters=size,
    )


GRID = {"model.depth": [1, 2, 3], "model.width": [32, 64, 128], "model.activation": ["tanh", "relu", "gelu"]}
