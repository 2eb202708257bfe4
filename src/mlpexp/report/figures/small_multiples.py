"""Small multiples on one scale, drawn into a single axes, since forty axes take seconds to draw.

Epochs and values are mapped to inches here.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.ticker import LogLocator, MaxNLocator

from mlpexp.report.figures.canvas import canvas, plain
from mlpexp.tracking.figures.plot_style import FAINT, GRID, short

COLUMNS = 4
WIDE, HIGH = 2.1, 1.25  # inches: one panel
GAP_X, GAP_Y = 0.22, 0.55
LEFT, BOTTOM, TOP = 0.75, 0.62, 0.85
LETTERS = 34  # of a title's line
DIGITS = ((0.7, (1, 1.5, 2, 3, 5, 7)), (1.5, (1, 2, 5)), (3, (1, 3)))  # labelled, up to so many decades
LEAST_RATIO = 1.5  # between the ends of a logarithmic axis


class Multiples:
    """Panels that share both axes.

    Args:
        epochs: the first and the last.
        low, high: ends of the axis of values.
        log: whether it is logarithmic.
    """

    def __init__(
        self, titles: Sequence[str], epochs: tuple[int, int], low: float, high: float, *, log: bool, label: str
    ) -> None:
        columns = min(len(titles), COLUMNS)
        rows = -(-len(titles) // columns)
        width = max(LEFT + columns * (WIDE + GAP_X), 5.6)
        self.figure, self.axes = canvas(width, BOTTOM + rows * (HIGH + GAP_Y) + TOP - GAP_Y)
        if log:
            margin = max((high / low) ** 0.05, (LEAST_RATIO / (high / low)) ** 0.5, 1.05)
            low, high = low / margin, high * margin
        self._log, self._low, self._high, self._epochs = log, low, high, epochs
        self._corners = []
        y_ticks, x_ticks = self._ticks()
        frame, grid = [], []
        for number, title in enumerate(titles):
            row, column = divmod(number, columns)
            x0, y0 = LEFT + column * (WIDE + GAP_X), BOTTOM + (rows - 1 - row) * (HIGH + GAP_Y)
            self._corners.append((x0, y0))
            frame.append([(x0, y0 + HIGH), (x0, y0), (x0 + WIDE, y0)])
            self.axes.text(x0, y0 + HIGH + 0.06, title, size=8, va="bottom", linespacing=1.15)
            for tick in y_ticks:
                y = y0 + float(self._y(np.array(tick)))
                grid.append([(x0, y), (x0 + WIDE, y)])
                if column == 0:
                    self.axes.text(x0 - 0.06, y, plain(tick), size=8, ha="right", va="center")
            if number + columns >= len(titles):
                for tick in x_ticks:
                    x = x0 + float(self._x(np.array(tick)))
                    frame.append([(x, y0), (x, y0 - 0.03)])
                    self.axes.text(x, y0 - 0.06, plain(tick), size=8, ha="center", va="top")
                self.axes.text(x0 + WIDE / 2, y0 - 0.22, "epoch", size=8, ha="center", va="top")
            if column == 0:
                self.axes.text(x0 - 0.55, y0 + HIGH / 2, label, size=8, ha="center", va="center", rotation=90)
        self._add(LineCollection(grid, colors=GRID, linewidths=0.8, zorder=0.5))
        self._add(LineCollection(frame, colors=FAINT, linewidths=0.8, zorder=2.5))

    def lines(self, panels: Sequence[int], values: Sequence[np.ndarray], colour: str) -> None:
        """One line in each of `panels`, (epochs,) values; NaN is a gap."""
        segments = []
        for panel, line in zip(panels, values, strict=True):
            x0, y0 = self._corners[panel]
            with np.errstate(invalid="ignore", divide="ignore"):
                points = np.stack([x0 + self._x(self._epochs[0] + np.arange(len(line))), y0 + self._y(line)], axis=1)
            for piece in _pieces(points):
                # one epoch is a short dash
                segments.append(piece if len(piece) > 1 else piece + np.array([[-0.04, 0], [0.04, 0]]))
        self._add(LineCollection(segments, colors=colour, linewidths=1.5, zorder=2, capstyle="round"))

    def bands(
        self, panels: Sequence[int], lows: Sequence[np.ndarray], highs: Sequence[np.ndarray], colour: str
    ) -> None:
        """The area between two lines in each of `panels`."""
        areas = []
        for panel, low, high in zip(panels, lows, highs, strict=True):
            x0, y0 = self._corners[panel]
            finite = np.isfinite(low) & np.isfinite(high)
            x = x0 + self._x(self._epochs[0] + np.flatnonzero(finite))
            if len(x) > 1:
                upper, lower = y0 + self._y(high[finite]), y0 + self._y(low[finite])
                areas.append(np.stack([np.concatenate([x, x[::-1]]), np.concatenate([upper, lower[::-1]])], axis=1))
        self._add(PolyCollection(areas, facecolors=colour, alpha=0.22, linewidths=0, zorder=1))

    def legend(self, names: Sequence[tuple[str, str]]) -> None:
        """(name, colour) of the lines, in the upper right corner."""
        handles = [self.axes.plot([], [], color=colour, label=name)[0] for name, colour in names]
        self.figure.legend(
            handles=handles, loc="upper right", ncols=len(handles), fontsize=9, handlelength=1.2, columnspacing=1.0,
            borderaxespad=0.2,
        )  # fmt: skip

    def _x(self, epoch: np.ndarray) -> np.ndarray:
        first, last = self._epochs
        return 0.06 + (WIDE - 0.12) * ((epoch - first) / (last - first) if last > first else epoch - first + 0.5)

    def _y(self, value: np.ndarray) -> np.ndarray:
        if self._log:
            value = np.log(np.where(value > 0, value, np.nan))
        low, high = (np.log(self._low), np.log(self._high)) if self._log else (self._low, self._high)
        return HIGH * (value - low) / (high - low)

    def _ticks(self) -> tuple[list[float], list[float]]:
        low, high = self._low, self._high
        if self._log:
            decades = np.log10(high / low)
            subs = next((digits for most, digits in DIGITS if decades < most), (1,))
            y_ticks = LogLocator(subs=subs, numticks=6).tick_values(low, high)
        else:
            y_ticks = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        x_ticks = MaxNLocator(nbins=4, steps=[1, 2, 5, 10], integer=True).tick_values(*self._epochs)
        inside = [float(t) for t in y_ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]
        return inside, [float(t) for t in x_ticks if self._epochs[0] <= t <= self._epochs[1]]

    def _add(self, collection: LineCollection | PolyCollection) -> None:
        self.axes.add_collection(collection, autolim=False)


def _pieces(points: np.ndarray) -> list[np.ndarray]:
    """The parts of a line between its gaps."""
    finite = np.isfinite(points).all(axis=1)
    edges = np.flatnonzero(np.diff(finite.astype(int))) + 1
    return [piece for piece in np.split(points, edges) if np.isfinite(piece).all() and len(piece)]


def panel_title(title: str) -> str:
    """As much of a configuration's name as fits above its panel, on two lines if need be."""
    if len(title) <= LETTERS:
        return title
    cut = title.rfind(", ", 0, LETTERS)
    if cut <= 0:
        return short(title, LETTERS)
    return f"{title[: cut + 1]}\n{short(title[cut + 2 :], LETTERS)}"
