"""How much of the variance each key explains."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlpexp.report.figures.canvas import CATEGORIES, label_width
from mlpexp.tracking.figures.plot_style import FAINT, headline, in_house_style, new_figure, place, short

ROW = 0.27  # inches
COLOURS = {"key": CATEGORIES[0], "pair": CATEGORIES[5], "seed": CATEGORIES[4], "noise": "#9A9A9A", "rest": "#9A9A9A"}


@in_house_style
def shares(bars: Sequence[tuple[str, float, str, str]], metric: str) -> Figure:
    """Horizontal bars, as given.

    Args:
        bars: name, share in [0, 1], kind (`key`, `pair`, `seed`, `noise`, `rest`), a remark.
    """
    left = label_width([name for name, *_ in bars], 34) + 0.2
    across = 4.2
    up = ROW * len(bars)
    figure = new_figure(left + across + 2.1, up + 0.95)
    axes = place(figure, left, 0.5, across, up)
    at = range(len(bars))
    axes.barh(at, [share for _, share, _, _ in bars], height=0.62, color=[COLOURS[kind] for _, _, kind, _ in bars])
    for row, (_, share, _, remark) in enumerate(bars):
        axes.annotate(
            f"{share:.1%}" if share >= 0.001 else "< 0.1%",
            (share, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
        axes.annotate(remark, (1, row), xycoords=("axes fraction", "data"), xytext=(44, 0), textcoords="offset points",
                      va="center", size=8, color=FAINT)  # fmt: skip
    axes.set_yticks(at, [short(name, 34) for name, *_ in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, max(0.1, *(share for _, share, _, _ in bars)))
    axes.tick_params(length=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("share of the variance between runs")
    headline(figure, f"What explains validation {'accuracy' if metric == 'acc' else 'loss'}")
    return figure
