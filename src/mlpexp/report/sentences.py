"""The answer in words. Plain text: the page and the terminal say the same."""

import math

from mlpexp.analysis.intervals import Estimate
from mlpexp.analysis.paired_tests import ALPHA
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.nn.metrics import METRICS, column_label

HINT = "add seed='range(5)' to the sweep"


def headline(analysis: Analysis) -> list[str]:
    """What to take home, the most important first."""
    best = analysis.best
    if best is None:
        return [_nothing(analysis)]
    ranked = analysis.ranking
    reported = ranked.estimate(best, analysis.reported)
    over = f" (95% interval over {reported.runs} {_seeds(analysis)})" if math.isfinite(reported.half) else ""
    aside = f"; {column_label(ranked.by)} {spelled(ranked.estimate(best, ranked.by))}"
    found = [
        f"Best by {column_label(ranked.by)}: {analysis.study.describe(best)}.",
        f"{column_label(analysis.reported).capitalize()} {spelled(reported)}{over}{aside}.",
    ]
    if not analysis.has_test:
        found.append(
            "There is no test part: these are the validation numbers that the choice was made by, so optimistic."
        )
    return [*found, *_against(analysis)]


def _nothing(analysis: Analysis) -> str:
    runs = analysis.study.num_runs
    if not runs:
        return "No run has ended yet, so there is nothing to report."
    counts = analysis.trouble.counts
    if counts["diverged"] == runs:
        return f"{_all(runs)} diverged, so nothing can be compared; a smaller optimizer.lr may help."
    if counts["failed"] == runs:
        return f"{_all(runs)} failed, so nothing can be compared; their messages are below."
    return f"None of {runs:,} runs ended well, so nothing can be compared."


def _all(runs: int) -> str:
    return f"All {runs:,} runs" if runs > 1 else "The only run"


def _against(analysis: Analysis) -> list[str]:
    against, second, best = analysis.comparison, analysis.runner_up, analysis.best
    if against is None or second is None or best is None:
        return ["There is only one configuration that ended well, so there is nothing to compare it with."]
    name = analysis.study.describe(second)
    difference, half, p = against.difference[second], against.half[second], against.adjusted[second]
    if not math.isfinite(p):
        gap = f"The runner-up, {name}, has {_number(analysis, second)}"
        if analysis.seeds < 2:
            return [f"{gap}. One run per configuration: no intervals and no comparison can be had; {HINT}."]
        return [f"{gap}; the two have too few seeds in common to be compared."]
    better = difference > 0 if METRICS[analysis.metric].higher_is_better else difference < 0
    size = f"{abs(difference):.4f} {'better' if better else 'worse'}" if difference else "equal"
    interval = f"[{difference - half:+.4f}, {difference + half:+.4f}]"
    how = f"{'paired' if against.paired else 'Welch'} t-test, {against.seeds[second]} seeds"
    pairs = f"{against.num_pairs:,} pair{'s' * (against.num_pairs != 1)}"
    detail = f"difference {difference:+.4f}; {how}, {chance(p)} after {against.method} over {pairs}; "
    detail += f"95% interval of this pair alone {interval}"
    if p > ALPHA:
        first = f"It is not distinguishable from the runner-up, {name} ({detail})."
    elif better:
        first = f"It is distinguishable from the runner-up, {name}: {size} ({detail})."
    else:
        where = "test" if analysis.has_test else "validation"
        first = f"On {where} data the runner-up, {name}, is better, distinguishably ({detail})."
    return [first, _equals(analysis)]


def _equals(analysis: Analysis) -> str:
    """How many others might be as good, and the smallest of them."""
    against = analysis.comparison
    assert against is not None
    others = int((analysis.ranking.finished > 0).sum()) - 1
    alike = [c for c in range(len(against.adjusted)) if against.adjusted[c] > ALPHA]
    untested = others - len(alike) - int(against.distinguishable.sum())
    said = f"Of the {others:,} other configurations {len(alike):,} cannot be told apart from it"
    if not alike and not untested:
        said = f"All {others:,} other configurations can be told apart from it"
    if len(alike) == others:
        said = f"None of the {others:,} other configurations can be told apart from it"
    if others == 1:
        said = "The other configuration " + ("cannot be told apart from it" if alike else "differs from it")
    if untested:
        said += f" and {untested:,} could not be tested"
    parameters = analysis.ranking.means["num_parameters"]
    smaller = [c for c in alike if parameters[c] < parameters[against.best]]
    if smaller:
        least = min(smaller, key=lambda c: parameters[c])
        said += (
            f"; the smallest of these, {analysis.study.describe(least)}, has {parameters[least]:,.0f} parameters "
            f"instead of {parameters[against.best]:,.0f}"
        )
    return said + "."


def method(analysis: Analysis) -> list[str]:
    """How the answer was come by, and what it does not say."""
    by = column_label(analysis.ranking.by)
    found = [
        f"Chosen by validation, reported by test: the best configuration is the one with the best mean {by} over its "
        "seeds, and no test number has a part in that or in any order on this page.",
    ]
    against = analysis.comparison
    if analysis.seeds > 1:
        found.append(
            "Intervals are Student's, over seeds: where the mean of as many other seeds would lie. They do not say how "
            "other test samples would fall out."
        )
    if against is not None and analysis.seeds > 1:
        if against.paired:
            found.append(
                "Compared by the paired t-test, since a seed means the same initial draw and batch order in every "
                "configuration. Wilcoxon's signed-rank test does not decide: with few seeds it cannot reach a "
                "corrected level."
            )
        else:
            found.append("Compared by Welch's t-test, since the configurations do not share their seeds.")
        found.append(
            f"The best was picked by looking at the data, so any of the {against.num_pairs:,} pairs could have been "
            f"the one compared: p-values are corrected for all of them ({against.method}); among equal "
            "configurations any is then called distinguishable in at most 5% of studies."
        )
        if math.isfinite(analysis.signed_rank):
            found.append(
                "As a check, uncorrected: Wilcoxon's signed-rank test of best against runner-up gives "
                f"{chance(analysis.signed_rank)}."
            )
    if analysis.ranking.diverged.any() and analysis.best is not None:
        found.append(
            "Configurations with a diverged run come after all others; means are over the runs that ended well."
        )
    if analysis.trouble.counts["chance"]:
        found.append("Runs that are no better than guessing have finite numbers: they count in every mean.")
    return found


def counts(analysis: Analysis) -> str:
    """`1,080 runs of 27 configurations: 3 diverged, 2 failed`."""
    study = analysis.study
    runs, configurations = study.num_runs, study.num_configurations
    said = f"{runs:,} run{'s' * (runs != 1)} of {configurations:,} configuration{'s' * (configurations != 1)}"
    if analysis.planned > runs:
        said += f" ({analysis.planned:,} planned)"
    words = {
        "diverged": "diverged",
        "failed": "failed",
        "unfinished": "unfinished",
        "stopped": "stopped early by halving",
        "chance": "no better than guessing",
    }
    wrong = [f"{number:,} {words[kind]}" for kind, number in analysis.trouble.counts.items() if number]
    return f"{said}: {', '.join(wrong)}" if wrong else said


def chance(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}" if p < 0.995 else "p = 1"


def spelled(estimate: Estimate) -> str:
    """`0.9712 ± 0.0021`"""
    if not math.isfinite(estimate.mean):
        return "–"
    return f"{estimate.mean:.4f}" + (f" ± {estimate.half:.4f}" if math.isfinite(estimate.half) else "")


def _number(analysis: Analysis, configuration: int) -> str:
    return f"{column_label(analysis.reported)} {spelled(analysis.ranking.estimate(configuration, analysis.reported))}"


def _seeds(analysis: Analysis) -> str:
    names = [key.name for key in analysis.study.seeds]
    return "seeds" if names == ["seed"] else "folds" if names == ["data.fold"] else "repetitions"
