"""The style of all figures: colours for colour-blind readers, sizes in inches, and conversion to PNG.

Axes are placed by hand: matplotlib's own layout engines cost more than the drawing.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

# Okabe and Ito
BLUE = "#0072B2"
VERMILION = "#D55E00"
INK = "#222222"
FAINT = "#6E6E6E"
GRID = "#E3E3E3"
TRAIN, VALIDATION = BLUE, VERMILION
# of classes: Okabe and Ito's, then Tol's muted ones that differ from them; more take turns with other markers
CLASSES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933", "#332288", "#666666")
MARKERS = "osD^vPX<>*"

LEGEND = 20  # classes that a legend names at most
PT = 1 / 72  # inches
DPI = 100

HOUSE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, has the arrow and the ellipsis
    "font.size": 9,
    "text.color": INK,
    "text.usetex": False,
    "text.parse_math": False,  # a class may be called $x
    "axes.edgecolor": FAINT,
    "axes.facecolor": "white",
    "axes.labelcolor": INK,
    "axes.grid": False,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.useoffset": False,
    "figure.facecolor": "white",
    "figure.dpi": DPI,
    "grid.color": GRID,
    "image.origin": "upper",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    "xtick.color": INK,
    "ytick.color": INK,
}


P = ParamSpec("P")
T = TypeVar("T")


def in_house_style(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw in this style without changing the caller's matplotlib settings."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> T:
        with rc_context(HOUSE):
            return draw(*args, **kwargs)

    return styled


@in_house_style
def png(figure: Figure, dpi: int = DPI) -> tuple[bytes, int, int]:
    """The figure as (PNG bytes, width, height in pixels), with fast compression."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(dpi)
    with warnings.catch_warnings():
        # a class name in a script that the font lacks is drawn as a box; this cannot be mended here
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        canvas.draw()
    width, height = canvas.get_width_height()
    picture = Image.frombuffer("RGBA", (width, height), canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
    content = io.BytesIO()
    picture.convert("RGB").save(content, format="png", compress_level=1)
    return content.getvalue(), width, height


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; inches."""
    return Figure(figsize=(width, height), dpi=DPI)


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes in a figure; inches from its lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def headline(figure: Figure, words: str) -> None:
    """One bold line in the figure's upper left corner; it takes 0.35 inches."""
    across, up = figure.get_size_inches()
    figure.text(0.15 / across, 1 - 0.12 / up, words, fontsize=10, fontweight="bold", va="top")


def text_width(words: str) -> float:
    """Estimated width in inches at 9 points, rather too large; an exact one needs a drawing."""
    narrow, wide = set(" .,:;'|!ijl"), set("mwMW@%→…")
    return sum(0.045 if c in narrow else 0.125 if c in wide or ord(c) > 0x2FF else 0.085 for c in words)


def short(name: object, letters: int = 12) -> str:
    """A name on one line, cut with an ellipsis."""
    words = " ".join(str(name).split())
    return words if len(words) <= letters else words[: letters - 1] + "…"


def class_legend(
    axes: Axes,
    present: Sequence[int],
    class_names: Sequence[str],
    style_of: Callable[[int], dict[str, Any]],
    other_entries: Sequence[tuple[Line2D, str]] = (),
) -> None:
    """Name the first `LEGEND` classes that are present, beside the axes.

    Args:
        style_of: colour and marker of a class.
        other_entries: below the classes.
    """
    style: dict[str, Any] = {"ls": "", "markersize": 6, "markeredgewidth": 0}
    entries = [(Line2D([], [], **style, **style_of(c)), short(class_names[c], 14)) for c in present[:LEGEND]]
    handles, names = zip(*entries, *other_entries, strict=True)
    axes.legend(handles, names, loc="upper left", bbox_to_anchor=(1.01, 1.01), title="true class", alignment="left")


def class_style(c: int) -> dict[str, Any]:
    """The colour and marker of a class's samples."""
    return {"color": CLASSES[c % len(CLASSES)], "marker": MARKERS[c // len(CLASSES) % len(MARKERS)]}
