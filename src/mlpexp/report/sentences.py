"""The sentences of the report, as plain text: page, terminal and TensorBoard show the same."""

import math
from collections.abc import Sequence

from mlpexp.analysis.load_sweep import VALIDATION_KEYS
from mlpexp.analysis.statistics import ALPHA, Estimate
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.nn.chance_level import LIKELY_CAUSES
from mlpexp.nn.metrics import higher_is_better, label
from mlpexp.report.score_sentences import score
from mlpexp.store.file_names import RESULT

HINT = "add seed='range(5)' to the sweep"
NAMED = 5  # runs in a sentence
PROBLEM_NAMES = {
    "diverged": "diverged",
    "failed": "failed",
    "unfinished": "unfinished",
    "stopped": "stopped early by halving",
    "chance": "no better than guessing",
}


def headline(analysis: Analysis) -> list[str]:
    """The answer, the most important sentence first."""
    best = analysis.best
    if best is None:
        return [_nothing(analysis)]
    ranked = analysis.ranking
    aside = f"; {label(ranked.by)} {spelled(ranked.estimate(best, ranked.by))}"
    sentences = [
        f"Best by {label(ranked.by)}: {analysis.study.describe(best)}{_of_how_many(analysis)}.",
        *score(analysis, aside),
    ]
    if ranked.diverged[best]:
        sentences.append(f"{ranked.diverged[best]:,} of its {ranked.runs[best]:,} runs diverged and have no number.")
    if ranked.chance[best]:
        sentences.append(
            f"{ranked.chance[best]:,} of its {ranked.runs[best]:,} runs are no better than guessing; {LIKELY_CAUSES}."
        )
    if not analysis.has_test:
        sentences.append("There is no test part: the validation numbers also made the choice, so they are optimistic.")
    different = [key.name for key in analysis.study.factors if key.name in VALIDATION_KEYS]
    if different:
        sentences.append(
            f"Careful: configurations with another {listed(different)} are measured on other data, so differences "
            "between them are not only differences between networks."
        )
    return [*sentences, *_against(analysis), *analysis.study.repeat_sentences()]


def _of_how_many(analysis: Analysis) -> str:
    """` (of 15 configurations, 7 of them at chance level)`, where some are."""
    ranked = analysis.ranking.ranked
    at_chance = sum(analysis.ranking.chance[c] > 0 for c in ranked)
    return f" (of {len(ranked):,} configurations, {at_chance:,} of them at chance level)" if at_chance else ""


def _nothing(analysis: Analysis) -> str:
    runs = analysis.study.num_runs
    if not runs:
        return "No run has ended yet, so there is nothing to report."
    all_of_them = f"All {runs:,} runs" if runs > 1 else "The only run"
    if analysis.counts["diverged"] == runs:
        return f"{all_of_them} diverged, so nothing can be compared; a smaller optimizer.lr may help."
    if analysis.counts["failed"] == runs:
        return f"{all_of_them} failed, so nothing can be compared; their messages are below."
    return f"None of {runs:,} runs ended with finite numbers, so nothing can be compared."


def _against(analysis: Analysis) -> list[str]:
    against, second, best = analysis.comparison, analysis.runner_up, analysis.best
    if against is None or second is None or best is None:
        return ["There is only one configuration with finite numbers, so there is nothing to compare it with."]
    name = analysis.study.describe(second)
    difference, half, p = against.difference[second], against.half[second], against.adjusted[second]
    if not math.isfinite(p):
        number = spelled(analysis.ranking.estimate(second, analysis.reported))
        gap = f"The runner-up, {name}, has {label(analysis.reported)} {number}"
        if analysis.seeds < 2:
            return [f"{gap}. One run per configuration: no intervals and no comparison are possible; {HINT}."]
        return [f"{gap}; the two have too few seeds in common to be compared."]
    better = difference > 0 if higher_is_better(analysis.reported) else difference < 0
    size = f"{abs(difference):.4f} {'better' if better else 'worse'}" if difference else "equal"
    interval = f"[{difference - half:+.4f}, {difference + half:+.4f}]"
    how = f"{'paired' if against.paired else 'Welch'} t-test, {against.seeds[second]} seeds"
    pairs = f"{against.num_pairs:,} pair{'s' * (against.num_pairs != 1)}"
    detail = f"difference {difference:+.4f}; {how}, {p_value(p)} after {against.method} over {pairs}; "
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
    """How many others are not distinguishable from the best, and the smallest of them."""
    against = analysis.comparison
    assert against is not None
    others = len(analysis.ranking.ranked) - 1
    alike = [c for c in range(len(against.adjusted)) if against.adjusted[c] > ALPHA]
    untested = others - len(alike) - int(against.distinguishable.sum())
    said = f"Of the {others:,} other configurations {len(alike):,} are not distinguishable from it"
    if not alike and not untested:
        said = f"All {others:,} other configurations are distinguishable from it"
    if others == 1:
        said = f"The other configuration is {'not ' * bool(alike)}distinguishable from it"
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
    """How the answer was computed, and what it does not say."""
    sentences = [
        f"The best configuration has the best mean {label(analysis.ranking.by)} over its seeds. No test number has a "
        "part in that choice or in any order on this page.",
    ]
    against = analysis.comparison
    if analysis.seeds > 1:
        sentences.append(
            "Intervals are Student's 95 % intervals over the repetitions of a configuration, without a correction for "
            "the choice of the best. The score of the best is corrected: each repetition is scored by the "
            "configuration that the others choose, and the interval allows for every configuration that could have "
            "been chosen as well."
        )
    if against is not None and analysis.seeds > 1:
        if against.paired:
            sentences.append(
                "Configurations are compared by the paired t-test, since a seed means the same random numbers in every "
                "configuration. Wilcoxon's signed-rank test is not used: with few seeds it cannot reach a corrected "
                "level."
            )
        else:
            sentences.append("Configurations are compared by Welch's t-test, since they do not share their seeds.")
        sentences.append(
            f"p-values are corrected for all {against.num_pairs:,} pairs of configurations ({against.method}), since "
            "the best was picked with the same data: among equal configurations a difference is then called "
            "distinguishable in at most 5 % of sweeps."
        )
        if math.isfinite(analysis.signed_rank):
            sentences.append(
                "As a check, uncorrected: Wilcoxon's signed-rank test of best against runner-up gives "
                f"{p_value(analysis.signed_rank)}."
            )
    if analysis.ranking.diverged.any() and analysis.best is not None:
        sentences.append(
            "A diverged run has no number: means are over the other runs, and configurations with a diverged run are "
            "ranked after those without."
        )
    if analysis.counts["chance"]:
        sentences.append("Runs that are no better than guessing have finite numbers and count in every mean.")
    return sentences


def verification(analysis: Analysis) -> list[str]:
    """What the numbers were checked against, and what could not be checked."""
    sources, runs = analysis.sources, analysis.study.num_runs
    sentences = []
    if sources.results:
        count = len(sources.results)
        sentences.append(
            f"The numbers of {count:,} of {runs:,} runs are those of the runs' own {RESULT}, whose checksums hold."
        )
    elif runs:
        sentences.append(f"No run has a {RESULT}, so versions and data are not known.")
    if sources.corrected:
        names = listed(sources.corrected[:NAMED], len(sources.corrected))
        sentences.append(
            f"Careful: {len(sources.corrected):,} of {runs:,} rows of results.csv differ from the runs' records "
            f"({names}); the runs' own numbers are shown."
        )
    if sources.damaged:
        names = listed(sources.damaged[:NAMED], len(sources.damaged))
        sentences.append(
            f"The {RESULT} of {len(sources.damaged):,} of {runs:,} runs is damaged, or its checksum is wrong ({names})."
        )
    if sources.unverified:
        sentences.append(
            f"The numbers of {sources.unverified:,} of {runs:,} runs are in results.csv only and were not verified."
        )
    for what, counter in (("versions", sources.versions), ("code", sources.commits), ("data", sources.digests)):
        if len(counter) > 1:
            sentences.append(f"Careful: not all runs have the same {what}.")
    return sentences


def counts(analysis: Analysis) -> str:
    """`1,080 runs of 27 configurations: 3 diverged, 2 failed`."""
    runs, configurations = analysis.study.num_runs, analysis.study.num_configurations
    said = f"{runs:,} run{'s' * (runs != 1)} of {configurations:,} configuration{'s' * (configurations != 1)}"
    if analysis.planned > runs:
        said += f" ({analysis.planned:,} planned)"
    problems = [f"{number:,} {PROBLEM_NAMES[name]}" for name, number in analysis.counts.items() if number]
    return f"{said}: {', '.join(problems)}" if problems else said


def p_value(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}" if p < 0.995 else "p = 1"


def spelled(estimate: Estimate) -> str:
    """`0.9712 ± 0.0021`"""
    if not math.isfinite(estimate.mean):
        return "–"
    return f"{estimate.mean:.4f}" + (f" ± {estimate.half:.4f}" if math.isfinite(estimate.half) else "")


def listed(words: Sequence[str], total: int | None = None) -> str:
    """`a, b and c`, or `a, b and 7 more` of `total`."""
    more = (total or len(words)) - len(words)
    parts = [*words, f"{more:,} more"] if more else list(words)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
