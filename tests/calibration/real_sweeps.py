"""Sweeps of real runs whose true means are known, since each configuration is trained with very many seeds.

A null: seeds of one network are dealt into pretended configurations, which are equal. A grid: a few of its seeds are
drawn, the same ones for all configurations. The true mean is that over all seeds.
"""

from pathlib import Path

import numpy as np
from simulated_sweeps import Sweeps

import mlpexp
from mlpexp.analysis import load_sweep

GRID = ("model.depth=1,2,3", "model.width=32,64,128", "model.activation=tanh,relu,gelu")  # the README's
PERCENTAGE_POINT = 0.01
METRICS = ("val/loss", "val/acc", "test/loss", "test/acc")


def trained(directory: Path, seeds: int, *settings: str) -> dict[str, np.ndarray]:
    """(C, seeds) of each metric, of a sweep over seeds without a directory per run; `settings` as on the command line.

    Raises:
        RuntimeError: a run has failed or diverged.
    """
    mlpexp.sweep([f"seed=range({seeds})", *settings], ["record=table", f"hydra.sweep.dir={directory}"])
    return scores(directory)


def scores(directory: Path) -> dict[str, np.ndarray]:
    """(C, seeds) of each metric of a sweep that is finished."""
    table, _ = load_sweep.read(directory)
    if not table.finite.all():
        raise RuntimeError(f"{(~table.finite).sum()} runs of {directory} have no finite numbers")
    return {name: table.table(name) for name in METRICS}


def dealt(
    decisive: np.ndarray, reported: np.ndarray, sweeps: int, configurations: int, seeds: int, seed: int = 0
) -> Sweeps:
    """Sweeps of runs that are drawn without replacement from (N,) scores, larger is better."""
    generator = np.random.default_rng(seed)
    size = configurations * seeds
    if size > len(reported):
        raise ValueError(f"{configurations} x {seeds} runs are more than the {len(reported)} that were trained")
    picked = np.stack([generator.choice(len(reported), size, replace=False) for _ in range(sweeps)])
    picked = picked.reshape(sweeps, configurations, seeds)
    return Sweeps(
        decisive=decisive[picked],
        reported=reported[picked],
        truth=np.full((sweeps, configurations), reported.mean()),
        deviation=float(reported.std()),
    )


def drawn(decisive: np.ndarray, reported: np.ndarray, sweeps: int, seeds: int, seed: int = 0) -> Sweeps:
    """Sweeps with a few of the seeds of (C, N) scores, larger is better; gaps in percentage points of `reported`."""
    generator = np.random.default_rng(seed)
    picked = np.stack([generator.choice(reported.shape[1], seeds, replace=False) for _ in range(sweeps)])
    return Sweeps(
        decisive=decisive[:, picked].swapaxes(0, 1),
        reported=reported[:, picked].swapaxes(0, 1),
        truth=np.tile(reported.mean(axis=1), (sweeps, 1)),
        deviation=PERCENTAGE_POINT,
    )
