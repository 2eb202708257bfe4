"""The course notebook's network in four implementations: by hand, autograd, torch.nn, and torch.nn in a stack."""

from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mlpexp.analysis import run_files
from mlpexp.report.studies.verdict import Rows, Verdict
from mlpexp.store import run_directory
from mlpexp.store.results_table import load_results
from mlpexp.tracking.figures.plot_style import BLUE, FAINT, INK, VERMILION

INITS = {"notebook": "the hand-made networks' start", "torch": "nn.Linear's start"}
STARTS = {"notebook": "hand-made start", "torch": "nn.Linear's"}
# the widest line first, so that all are visible where they coincide
WAYS: dict[str, dict[str, Any]] = {
    "by hand": {"color": "#E69F00", "lw": 7},
    "autograd": {"color": "#56B4E9", "lw": 4},
    "torch.nn": {"color": INK, "lw": 1.4},
    "stack": {"color": VERMILION, "lw": 0, "marker": "o", "ms": 4, "mfc": "white"},
}
REFERENCE = "torch.nn"

Offsets = tuple[tuple[int, tuple[int, int]], ...]


def read(directory: Path) -> Rows:
    """The table, with the metrics of each epoch as `curves` and the seconds per epoch as `epoch_s`, if known."""
    return [
        {
            **row,
            "curves": run_files.curves(directory, [row["name"]]).values,
            "epoch_s": run_directory.read_result(directory / row["name"]).seconds.get("epoch"),
        }
        for row in load_results(directory)
    ]


def verdict(rows: Rows) -> Verdict:
    """Loss and accuracy of the four implementations over the epochs, from both starts, and their differences."""
    curves = {(row["model.init"], way(row)): row["curves"] for row in rows}
    sentences = []
    for init, start in INITS.items():
        by_name = {name: curves[init, name] for name in WAYS}
        loss, accuracy = (by_name[REFERENCE][name][0] for name in ("val/loss", "val/acc"))
        sentences.append(
            f"From {start}: loss {loss[0]:.6f}, accuracy {accuracy[0]:.6f} after the first epoch, {loss[-1]:.6f} and "
            f"{accuracy[-1]:.6f} after the last."
        )
        distances = {
            name: _difference(by_name[name]["val/loss"], by_name[REFERENCE]["val/loss"])
            for name in WAYS
            if name != REFERENCE
        }
        by_hand = _difference(by_name["by hand"]["val/loss"], by_name["autograd"]["val/loss"])
        hits = {name: np.abs(by_name[name]["val/acc"] - by_name[REFERENCE]["val/acc"]).max() for name in distances}
        sentences.append(
            f"Farthest from {REFERENCE} alone in any epoch, relative in loss: "
            + ", ".join(
                f"{name} {gap:.1g}" if gap else f"{name} nothing, to the bit" for name, gap in distances.items()
            )
            + f" (by hand from autograd {by_hand:.1g}); "
            + "in accuracy: "
            + ", ".join(f"{name} {gap:.1g}" if gap else f"{name} nothing" for name, gap in hits.items())
            + "."
        )
    if times := _epoch_times(rows):
        sentences.append(
            "Time per epoch, trained alone (training and validation; the first epoch, which is slower, left out): "
            + ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in times.items())
            + "."
        )
    return Verdict(figure=_draw(curves), sentences=sentences)


def way(row: Any) -> str:
    """Which of `WAYS` a run is; a run that draws figures trains alone."""
    if row["model.variant"] == "torch_nn":
        return "torch.nn" if str(row["tracking.figures"]) == "True" else "stack"
    return "by hand" if row["model.variant"] == "backprop" else "autograd"


def _epoch_times(rows: Rows) -> dict[str, float]:
    """The median over runs of the seconds per epoch, by implementation; empty where no run has noted them."""
    times: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.get("epoch_s") is not None:
            times[way(row)].append(row["epoch_s"])
    return {name: median(times[name]) for name in WAYS if name in times}


def _difference(loss: np.ndarray, reference: np.ndarray) -> float:
    return float((np.abs(loss - reference) / reference).max())


def _draw(curves: dict[tuple[str, str], dict[str, np.ndarray]]) -> Figure:
    figure = Figure(figsize=(11, 4), layout="constrained")
    loss, accuracy, distance = figure.subplots(1, 3)
    for axes, metric, name in ((loss, "val/loss", "loss (nats)"), (accuracy, "val/acc", "accuracy (share correct)")):
        for init in INITS:
            for implementation, style in WAYS.items():
                values = curves[init, implementation][metric][0]
                axes.plot(range(1, len(values) + 1), values, label=implementation if init == "torch" else None, **style)
        axes.set(xlabel="epoch", ylabel=f"{name}, all digits", xticks=range(1, len(values) + 1))
    _name_starts(loss, curves, "val/loss", ((4, (4, 14)), (3, (-40, -42))))
    _name_starts(accuracy, curves, "val/acc", ((3, (-6, -30)), (3, (-20, 30))))
    accuracy.set_ylim(top=1)
    loss.legend(fontsize=8)
    accuracy.set_title("One network, four implementations")
    for init, marker in zip(INITS, "os", strict=True):
        reference = curves[init, REFERENCE]["val/loss"][0]
        for implementation, style in list(WAYS.items()):
            gap = np.abs(curves[init, implementation]["val/loss"][0] - reference) / reference
            if implementation != REFERENCE:
                shade = VERMILION if implementation == "stack" else style["color"]
                distance.plot(
                    range(1, len(gap) + 1),
                    gap,
                    marker + "-",
                    color=shade,
                    ms=4,
                    label=f"{implementation}, {STARTS[init]}",
                )
    distance.set_yscale("symlog", linthresh=1e-8)
    ticks = [0, *(10.0**power for power in range(-8, 1))]
    distance.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    distance.yaxis.set_minor_locator(NullLocator())
    distance.set(ylim=(-2e-9, 1e4), xlabel="epoch", xticks=range(1, len(gap) + 1))
    distance.set(ylabel="relative difference in loss", title="Distance from torch.nn alone")
    distance.axhline(2**-23, color=BLUE, lw=0.8, ls=":")
    distance.text(1, 2**-23 * 1.15, "one unit in the last place of a float32", fontsize=7, color=BLUE)
    distance.legend(fontsize=7, loc="upper right")
    return figure


def _name_starts(
    axes: Axes, curves: dict[tuple[str, str], dict[str, np.ndarray]], metric: str, offsets: Offsets
) -> None:
    """Annotate each pair of curves: at which epoch, with which offset in points."""
    for (init, start), (epoch, offset) in zip(INITS.items(), offsets, strict=True):
        point = (epoch, curves[init, REFERENCE][metric][0][epoch - 1])
        arrow = {"arrowstyle": "-", "color": FAINT, "lw": 0.7}
        axes.annotate(start, point, xytext=offset, textcoords="offset points", fontsize=8, arrowprops=arrow)
