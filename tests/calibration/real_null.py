"""A real null: many seeds of one network, dealt into pretended configurations, which are equal.

Seeds are dealt at random, a new deal for each sweep. The true mean is that over all seeds.
"""

import contextlib
import io
import runpy
import sys
from pathlib import Path

import numpy as np
from simulated_sweeps import Sweeps

from mlpexp.store.results_table import load_results

TRAIN = Path(__file__).parents[2] / "scripts/train.py"


def trained(directory: Path, seeds: int, *overrides: str) -> dict[str, np.ndarray]:
    """(seeds,) of each metric, of a sweep over seeds without a directory per run."""
    words = ["-m", f"seed=range({seeds})", "record=table", f"hydra.sweep.dir={directory}", *overrides]
    before = sys.argv
    said = io.StringIO()
    try:
        sys.argv = [str(TRAIN), *words]
        with contextlib.redirect_stdout(said):
            runpy.run_path(str(TRAIN), run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"the sweep ended with exit code {end.code}: {said.getvalue()[-500:]}") from None
    finally:
        sys.argv = before
    rows = load_results(directory)
    metrics = ("val/loss", "val/acc", "test/loss", "test/acc")
    return {name: np.array([row[name] for row in rows], float) for name in metrics}


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
