"""Error rates, power and coverage of the statistics, in simulated sweeps with known truth, in one real null, and in the
README's grid, where "power" is the share of configurations told apart whose mean accuracy over 200 seeds is a
percentage point or more below that of the best.

    python tests/calibration/calibrate.py [--sweeps N] [--seed N] [--out FILE] [--only PART …]

Each rate has the 95 % interval of what the number of simulated sweeps leaves uncertain. The exit code is 1 where an
error rate is significantly above 5 %, or a coverage significantly below 93 %, outside the cells that are named as
limits.
"""

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import real_sweeps
from rates import Rates, best_scores, comparisons
from simulated_sweeps import KINDS, simulate

PARTS = ("comparisons", "scores", "null", "grid")
NULL_SEEDS, GRID_SEEDS = 1000, 200
MOST_ERRORS, LEAST_COVERAGE = 0.05, 0.93
KEPT = {"comparisons": ("family", "false equivalence"), "scores": ("coverage",)}
SHOWN = {
    "comparisons": (
        *("family", "comparison", "power", "Holm family", "Holm comparison", "Holm power"),
        *("equivalence", "false equivalence"),
    ),
    "scores": ("coverage", "Student"),
}


COLUMNS = (
    *("part", "kind", "layout", "configurations", "seeds", "r"),
    *("rate", "value", "low", "high", "occasions", "limit"),
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind of sweep."""

    kind: str
    layout: str
    configurations: int
    seeds: int
    r: float

    @property
    def limit(self) -> str:
        """Why no method that sees only these runs can keep the coverage; empty where one can."""
        if self.kind == "failed trainings" and 0.9 ** (self.configurations * self.seeds) > 0.02:
            return "often no run of the sweep fails, so that it shows nothing of failures"
        return ""


def comparison_cells() -> Iterator[Cell]:
    for layout, configurations, seeds, r in product(("equal", "half", "spread"), (9, 27), (2, 3, 5, 10), (0.7, 0.9)):
        if configurations == 9 or (r == 0.9 and layout != "half"):
            yield Cell(kind="normal", layout=layout, configurations=configurations, seeds=seeds, r=r)
    for kind, layout, seeds in product(list(KINDS)[1:], ("equal", "spread"), (3, 5, 10)):
        yield Cell(kind=kind, layout=layout, configurations=9, seeds=seeds, r=0.9)


def score_cells() -> Iterator[Cell]:
    for kind, layout, configurations, seeds, r in product(
        KINDS, ("equal", "spread"), (1, 2, 10, 100), (3, 5, 10), (0.7, 0.9)
    ):
        yield Cell(kind=kind, layout=layout, configurations=configurations, seeds=seeds, r=r)


def null_cells(r: float) -> Iterator[Cell]:
    for configurations, seeds in product((9, 27), (3, 5, 10)):
        yield Cell(kind="one network", layout="equal", configurations=configurations, seeds=seeds, r=r)


class Table:
    """Rows on the terminal as they come, and in a file."""

    def __init__(self, out: Path | None) -> None:
        self.rows: list[dict[str, object]] = []
        self.out = out
        self.failed: list[str] = []

    def add(self, part: str, cell: Cell, rates: Rates) -> None:
        name = f"{cell.kind}, {cell.layout}, {cell.configurations} x {cell.seeds}, r {cell.r:g}"
        said = [f"{shown} {rates.spelled(shown)}" for shown in SHOWN[part] if rates.occasions.get(shown)]
        said += [f"{shown} {value:+.2f}" for shown, value in rates.means.items()]
        limit = cell.limit if part == "scores" else ""
        print(f"{part:<11} {name:<44} {'; '.join(said)}{'  (limit)' * bool(limit)}", flush=True)
        for rate in SHOWN[part]:
            low, high = rates.interval(rate)
            self.rows.append(
                vars(cell)
                | {"part": part, "rate": rate, "value": rates.value(rate), "low": low, "high": high}
                | {"occasions": rates.occasions.get(rate, 0), "limit": limit}
            )
        for rate, value in rates.means.items():
            self.rows.append(vars(cell) | {"part": part, "rate": rate, "value": value, "limit": limit})
        for rate in KEPT[part]:
            low, high = rates.interval(rate)
            if not limit and (high < LEAST_COVERAGE if rate == "coverage" else low > MOST_ERRORS):
                self.failed.append(f"{name}: {rate} {rates.spelled(rate)}")

    def write(self) -> None:
        if self.out is not None and self.rows:
            with self.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(self.rows)


def correlation(decisive: np.ndarray, reported: np.ndarray) -> float:
    """Over runs, the median of the configurations."""
    rows = zip(np.atleast_2d(decisive), np.atleast_2d(reported), strict=True)
    return round(float(np.median([np.corrcoef(one, other)[0, 1] for one, other in rows])), 2)


def run(parts: list[str], sweeps: int, seed: int, table: Table, kinds: Collection[str] = tuple(KINDS)) -> None:
    """Add the rates of all cells of these parts."""
    measures = {"comparisons": comparisons, "scores": best_scores}
    for part, cells in (("comparisons", comparison_cells), ("scores", score_cells)):
        for cell in cells() if part in parts else ():
            if cell.kind not in kinds:
                continue
            table.add(part, cell, measures[part](simulate(**vars(cell), sweeps=sweeps, seed=seed)))
    if "null" in parts:
        with tempfile.TemporaryDirectory() as place:
            scores = real_sweeps.trained(Path(place, "null"), NULL_SEEDS)
        decisive, reported = -scores["val/loss"][0], scores["test/acc"][0]
        for cell in null_cells(correlation(decisive, reported)):
            dealt = real_sweeps.dealt(decisive, reported, sweeps, cell.configurations, cell.seeds, seed)
            for part, measure in measures.items():
                table.add(part, cell, measure(dealt))
    if "grid" in parts:
        with tempfile.TemporaryDirectory() as place:
            scores = real_sweeps.trained(Path(place, "grid"), GRID_SEEDS, *real_sweeps.GRID)
        decisive, reported = -scores["val/loss"], scores["test/acc"]
        for seeds in (3, 5, 10):
            sizes = {"configurations": len(reported), "seeds": seeds, "r": correlation(decisive, reported)}
            drawn = real_sweeps.drawn(decisive, reported, sweeps, seeds, seed)
            for part, measure in measures.items():
                table.add(part, Cell(kind="README's grid", layout="real", **sizes), measure(drawn))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=2000, help="simulated sweeps of each kind (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--out", type=Path, default=Path("calibration.csv"), help="the table (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some parts only")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="some simulated kinds only")
    given = parser.parse_args()
    started = time.perf_counter()
    table = Table(given.out)
    try:
        run(given.only or list(PARTS), given.sweeps, given.seed, table, given.kinds)
    finally:
        table.write()
    print(f"{len(table.rows)} rates in {time.perf_counter() - started:.0f} s, in {given.out}")
    for line in table.failed:
        print(f"outside its bounds: {line}", file=sys.stderr)
    return bool(table.failed)


if __name__ == "__main__":
    sys.exit(main())
