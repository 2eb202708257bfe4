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
    best = best_score.score_of_best(analysis.blocks, analysis.ranking, analysis.reported, samples)
    assert best is not None and analysis.best is not None, "a score is that of a best configuration"
    title = label(analysis.reported)
    name, estimate = f"{title[0].upper()}{title[1:]}", analysis.ranking.estimate(analysis.best, analysis.reported)
    if not math.isfinite(best.low):
        return [f"{name} {best.mean:.4f}{aside}.", *_test_sample(analysis, best.mean)]
    repeated = [key.name for key in analysis.study.seeds]
    interval = f"95% interval over {best.repetitions} {analysis.blocks.name}"
    uncorrected = f"{best.mean:.4f} ± {estimate.half:.4f}"
    if len(analysis.ranking.ranked) == 1:
        sentence = f"{name} {best.mean:.4f} ({interval} [{best.low:.4f}, {best.high:.4f}]){aside}."
    else:
        sentence = (
            f"{name} {best.corrected:.4f} ({interval} [{best.low:.4f}, {best.high:.4f}], corrected for the choice of "
            f"the best; uncorrected {uncorrected}){aside}."
        )
    covers = variation.covered_in_words(repeated, _redraws_test(analysis))
    return [sentence, f"The interval {covers}.", *_test_sample(analysis, best.mean)]


def _redraws_test(analysis: Analysis) -> bool:
    """Whether another data seed draws another test part; a test file of its own stays the same."""
    study = analysis.study
    data = run_files.configuration(study.directory, study.names[0]).get("data")
    if isinstance(data, dict):
        return data.get("test_path") is None
    overrides = run_files.overrides(study.directory, study.names[0]) or []  # all that a table of runs has
    return not any(override.lstrip("+").startswith("data.test_path=") for override in overrides)


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
    sample = variation.sample_variation(analysis.study, analysis.sources, best)
    if sample is not None:
        sentence = f"On {sample.samples:,} other test samples it would vary in [{sample.low:.4f}, {sample.high:.4f}]"
        runner_up = analysis.runner_up
        if runner_up is not None and math.isfinite(sample.difference[runner_up]):
            low, high = sample.difference_low[runner_up], sample.difference_high[runner_up]
            sentence += f", its lead over the runner-up in [{low:+.4f}, {high:+.4f}]"
        return [f"{sentence} (bootstrap of the recorded hits, the runs as they are)."]
    samples = _test_samples(analysis)
    if not samples:
        return []
    low, high = variation.binomial_interval(mean, samples)
    return [
        f"On {samples:,} other test samples it would vary in [{low:.4f}, {high:.4f}] at most (binomial; with "
        "tracking.test_hits=true runs are compared sample by sample)."
    ]
