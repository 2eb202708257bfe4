"""The sentences of the report, as plain text: page, terminal and TensorBoard show the same."""

import numpy as np

from mlpexp.analysis.load_sweep import VALIDATION_KEYS
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.analysis.variance import confounded
from mlpexp.nn.chance_level import LIKELY_CAUSES
from mlpexp.nn.metric_columns import label
from mlpexp.report import comparison_sentences
from mlpexp.report.score_sentences import score
from mlpexp.report.wording import listed
from mlpexp.runtime.terminal import counted
from mlpexp.store.file_names import RESULT

NAMED = 5  # runs in a sentence
PROBLEM_NAMES = {
    "diverged": "diverged",
    "failed": "failed",
    "unfinished": "unfinished",
    "stopped": "stopped early",
    "chance": "no better than guessing",
}


def headline(analysis: Analysis) -> list[str]:
    """The answer, the most important sentence first."""
    best = analysis.best
    if best is None:
        return [_no_best_sentence(analysis), *_missing_runs(analysis)]
    ranked = analysis.ranking
    aside = f"; {label(ranked.by)} {ranked.estimate(best, ranked.by)}"
    score_sentence, *notes = score(analysis, aside)
    sentences = [
        f"Best by {label(ranked.by)}: {analysis.study.describe(best)}{_chance_remark(analysis)}.",
        *_missing_runs(analysis),
        score_sentence,
        *comparison_sentences.against_others(analysis),
    ]
    return [*sentences, *_warnings(analysis, best), *notes, *analysis.study.repeat_sentences()]


def _missing_runs(analysis: Analysis) -> list[str]:
    """How many planned runs are missing."""
    if not analysis.missing or analysis.sources.plan is None:
        return []
    planned = analysis.planned
    have = f"{planned - analysis.missing:,} of {planned:,} planned runs have ended, {analysis.missing:,} are missing"
    change = ", and the best may change" if analysis.ranking.best is not None else ""
    return [f"The sweep is not complete: {have}{change}; the command of the sweep trains them."]


def _warnings(analysis: Analysis, best: int) -> list[str]:
    """Diverged runs, numbers that are missing, and numbers that cannot be compared."""
    ranked, study = analysis.ranking, analysis.study
    sentences = []
    if ranked.diverged[best]:
        sentences.append(
            f"{ranked.diverged[best]:,} of its {ranked.runs[best]:,} runs diverged{_diverged_remark(analysis)}."
        )
    if num_others := int((ranked.diverged > 0).sum()) - int(ranked.diverged[best] > 0):
        shares = ranked.diverged / np.maximum(ranked.runs, 1)
        most_diverged = int(np.argmax(np.where(np.arange(len(shares)) == best, -1, shares)))
        subject = f"{num_others:,} other configurations have" if num_others > 1 else "One other configuration has"
        sentences.append(
            f"{subject} diverged runs, {study.describe(most_diverged)} {shares[most_diverged]:.0%} of its runs."
        )
    if ranked.chance[best]:
        count = (
            f"{ranked.chance[best]:,} of its {ranked.runs[best]:,} runs {'is' if ranked.chance[best] == 1 else 'are'}"
        )
        sentences.append(f"{count} no better than guessing; {LIKELY_CAUSES}.")
    if not analysis.has_test:
        sentences.append("There is no test part: the validation numbers also made the choice, so they are optimistic.")
    different = [key.name for key in study.factors if key.name in VALIDATION_KEYS]
    if different:
        sentences.append(
            f"Careful: configurations with another {listed(different)} are measured on other data, so differences "
            "between them are not only differences between networks."
        )
    for key, other in confounded(analysis.levels).items():
        name, leader = study.factors[key].name, study.factors[other].name
        sentences.append(
            f"Careful: {name} only changed together with {leader}, so their effects cannot be told apart; effects of "
            f"{leader} are those of both."
        )
    blocks = analysis.blocks
    if blocks.keys[:1] != ("seed",) and blocks.keys and not _has_equal_blocks(analysis):
        sentences.append(
            f"Careful: not every configuration has the same {blocks.name}, so means and ranking are over different "
            "validation samples; comparisons are adjusted for what the configurations share."
            if blocks.shared
            else f"Careful: configurations have {blocks.name} of their own, so they are ranked by different validation "
            "samples."
        )
    return sentences


def _has_equal_blocks(analysis: Analysis) -> bool:
    """Whether every ranked configuration has a run in the same blocks."""
    has_run = np.isfinite(analysis.blocks.table(analysis.ranking.by))[analysis.ranking.ranked]
    return bool((has_run == has_run[:1]).all())


def _diverged_remark(analysis: Analysis) -> str:
    return " and count as the worst run" if analysis.study.counts_diverged else " and have no number"


def _chance_remark(analysis: Analysis) -> str:
    """` (of 15 configurations, 7 of them at chance level)`, where some are."""
    ranked = analysis.ranking.ranked
    at_chance = sum(analysis.ranking.chance[c] > 0 for c in ranked)
    return f" (of {len(ranked):,} configurations, {at_chance:,} of them at chance level)" if at_chance else ""


def _no_best_sentence(analysis: Analysis) -> str:
    study = analysis.study
    runs = study.num_runs
    if not runs:
        return "No run has ended yet, so there is nothing to report."
    if unfinished := analysis.counts["unfinished"]:
        ended = runs - unfinished
        if not ended:
            return "No run has ended yet, so nothing can be compared."
        have = f"{counted(ended, 'run')} {'has' if ended == 1 else 'have'} ended"
        return f"{have}, none with numbers that can be compared."
    all_of_them = f"All {runs:,} runs" if runs > 1 else "The only run"
    if analysis.counts["diverged"] == runs:
        return f"{all_of_them} diverged, so nothing can be compared; a smaller optimizer.lr may help."
    if analysis.counts["failed"] == runs:
        return f"{all_of_them} failed, so nothing can be compared; results.csv has their messages."
    if notes := [text for status, text in zip(study.status, study.messages, strict=True) if status == "ok" and text]:
        return f"Nothing can be compared: {notes[0]}."
    return f"None of {runs:,} runs ended with finite numbers, so nothing can be compared."


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
    if against is not None and np.isfinite(against.adjusted).any():
        sentences += comparison_sentences.method(analysis, against)
    if analysis.ranking.diverged.any() and analysis.best is not None:
        sentences.append(
            "A diverged run counts with the worst value of the sweep (--diverged worst)."
            if analysis.study.counts_diverged
            else "A diverged run has no number: means are over the other runs, and configurations with a diverged run "
            "are ranked after those without (--diverged worst counts such a run with the worst value instead)."
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
    if sources.unlisted:
        sentences.append(
            f"{sources.unlisted:,} finished runs of this sweep are not in results.csv, which lists those of the last "
            "command; they are included."
        )
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
    for kind, counter in (("versions", sources.versions), ("code", sources.commits), ("data", sources.digests)):
        if len(counter) > 1:
            sentences.append(f"Careful: not all runs have the same {kind}.")
    return sentences


def counts(analysis: Analysis) -> str:
    """`1,080 runs of 27 configurations: 3 diverged, 2 failed`."""
    runs, configurations = analysis.study.num_runs, analysis.study.num_configurations
    text = f"{counted(runs, 'run')} of {counted(configurations, 'configuration')}"
    if analysis.planned > runs:
        text += f" ({analysis.planned:,} planned)"
    problems = [f"{number:,} {PROBLEM_NAMES[name]}" for name, number in analysis.counts.items() if number]
    return f"{text}: {', '.join(problems)}" if problems else text
