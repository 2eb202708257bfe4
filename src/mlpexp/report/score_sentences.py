"""Sentences on the score of the best configuration: corrected for the choice, and what its interval covers."""

import math

from mlpexp.analysis import best_score, run_files, variation
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.nn.metric_columns import label


def score(analysis: Analysis, aside: str) -> list[str]:
    """The score, what its interval covers, and how much it would vary on another test sample.

    Args:
        aside: what else the first sentence says of the best configuration.
    """
    samples = _test_samples(analysis) if analysis.reported == "test/acc" else 0
    found = best_score.score_of_best(analysis.blocks, analysis.ranking, analysis.reported, samples)
    assert found is not None and analysis.best is not None, "a score is that of a best configuration"
    words = label(analysis.reported)
    name, own = f"{words[0].upper()}{words[1:]}", analysis.ranking.estimate(analysis.best, analysis.reported)
    if not math.isfinite(found.low):
        return [f"{name} {found.mean:.4f}{aside}.", *_test_sample(analysis, found.mean)]
    repeated = [key.name for key in analysis.study.seeds]
    over = f"95% interval over {found.repetitions} {analysis.blocks.name}"
    said = f"{found.mean:.4f} ± {own.half:.4f}"
    if len(analysis.ranking.ranked) == 1:
        first = f"{name} {found.mean:.4f} ({over} [{found.low:.4f}, {found.high:.4f}]){aside}."
    else:
        first = (
            f"{name} {found.corrected:.4f} ({over} [{found.low:.4f}, {found.high:.4f}], corrected for the choice of "
            f"the best; uncorrected {said}){aside}."
        )
    covers = variation.covered_in_words(repeated, _redraws_test(analysis))
    return [first, f"The interval {covers}.", *_test_sample(analysis, found.mean)]


def _redraws_test(analysis: Analysis) -> bool:
    """Whether another data seed draws another test part; a test file of its own stays the same."""
    study = analysis.study
    data = run_files.configuration(study.directory, study.names[0]).get("data")
    if isinstance(data, dict):
        return data.get("test_path") is None
    given = run_files.overrides(study.directory, study.names[0]) or []  # all that a table of runs has
    return not any(word.lstrip("+").startswith("data.test_path=") for word in given)


def _test_samples(analysis: Analysis) -> int:
    """The size of the smallest test part among the runs of the best configuration; 0 where it is not recorded."""
    assert analysis.best is not None
    results = (analysis.sources.results.get(analysis.study.names[run]) for run in analysis.study.members[analysis.best])
    return min((result.test_samples for result in results if result is not None and result.test_samples), default=0)


def _test_sample(analysis: Analysis, mean: float) -> list[str]:
    """How much another test sample would change an accuracy."""
    best = analysis.best
    if best is None or analysis.reported != "test/acc":
        return []
    found = variation.sample_variation(analysis.study, analysis.sources, best)
    if found is not None:
        said = f"On {found.samples:,} other test samples it would vary in [{found.low:.4f}, {found.high:.4f}]"
        second = analysis.runner_up
        if second is not None and math.isfinite(found.difference[second]):
            low, high = found.difference_low[second], found.difference_high[second]
            said += f", its lead over the runner-up in [{low:+.4f}, {high:+.4f}]"
        return [f"{said} (bootstrap of the recorded hits, the runs as they are)."]
    samples = _test_samples(analysis)
    if not samples:
        return []
    low, high = variation.binomial_interval(mean, samples)
    return [
        f"On {samples:,} other test samples it would vary in [{low:.4f}, {high:.4f}] at most (binomial; with "
        "tracking.test_hits=true runs are compared sample by sample)."
    ]
