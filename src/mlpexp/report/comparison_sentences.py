"""Sentences on the best configuration against the others: how sure, what is cheaper, what to run next."""

import math
from collections.abc import Sequence

import numpy as np

from mlpexp.analysis import run_files
from mlpexp.analysis.comparison import Comparison
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.config import overrides
from mlpexp.nn.metric_columns import higher_is_better, label
from mlpexp.report.wording import p_value
from mlpexp.runtime import shell_commands
from mlpexp.store.file_names import TABLE

HINT = "add 'seed=range(5)' to the sweep"
AFFORDABLE = 200  # further seeds that are proposed first
ABSENT = "default"


def against_others(analysis: Analysis, with_command: bool = True) -> list[str]:
    """How sure the best is, what is nearly as good and cheaper, and what to run next, as text or as a command."""
    comparison, runner_up, best = analysis.comparison, analysis.runner_up, analysis.best
    if comparison is None or runner_up is None or best is None:
        return ["There is only one configuration with finite numbers, so there is nothing to compare it with."]
    if not np.isfinite(comparison.adjusted).any():
        name, number = analysis.study.describe(runner_up), analysis.ranking.estimate(runner_up, analysis.reported)
        gap = f"The runner-up, {name}, has {label(analysis.reported)} {number}"
        if analysis.seeds < 2:
            return [f"{gap}. One run per configuration: no intervals and no comparison are possible; {HINT}."]
        return [f"{gap}; no configuration has enough runs to be compared."]
    return [
        _how_sure(analysis, comparison, runner_up),
        *_cheaper(analysis, comparison),
        _next_seeds(analysis, comparison, with_command),
    ]


def _how_sure(analysis: Analysis, comparison: Comparison, runner_up: int) -> str:
    higher = higher_is_better(analysis.reported)
    data_part = "test" if analysis.has_test else "validation"
    num_others = len(analysis.ranking.ranked) - 1
    answers = [comparison.answer(c, higher) for c in range(len(comparison.adjusted))]
    name = analysis.study.describe(runner_up)
    detail = (
        f"{answers[runner_up]} (difference {comparison.difference[runner_up]:+.4f} ± {comparison.half[runner_up]:.4f}, "
    )
    detail += f"{p_value(comparison.adjusted[runner_up])})"
    if num_others == 1:
        return f"The only other, {name}, is {detail} on {data_part} data."
    number = {word: answers.count(word) for word in ("worse", "better", "equivalent", "undecided")}
    are = "is" if number["worse"] == 1 else "are"
    clauses = [f"Of the {num_others:,} others {number['worse']:,} {are} worse on {data_part} data (family-wise 5 %)"]
    if number["better"]:
        clauses.append(f"{number['better']:,} better")
    if comparison.margin is not None:
        clauses.append(f"{number['equivalent']:,} equivalent within {comparison.margin:g}")
    clauses.append(f"{number['undecided']:,} undecided")
    if untested := num_others - sum(number.values()):
        clauses.append(f"{untested:,} not testable")
    if not answers[runner_up]:
        detail = "not testable: it has too few runs"
    return f"{', '.join(clauses)}; the runner-up, {name}, is {detail}."


def _cheaper(analysis: Analysis, comparison: Comparison) -> list[str]:
    """The smallest configuration that is equivalent, or else the smallest that is undecided."""
    parameters, ranked = analysis.ranking.means["num_parameters"], analysis.ranking
    as_stable = ranked.diverged <= ranked.diverged[comparison.best]
    smaller = as_stable & (parameters < parameters[comparison.best])
    size = f"{parameters[comparison.best]:,.0f} parameters"
    for kind, mask in (("equivalent", comparison.equivalent), ("undecided", comparison.undecided)):
        candidates = np.flatnonzero(mask & smaller)
        if not len(candidates):
            continue
        smallest = int(candidates[np.argmin(parameters[candidates])])
        name = f"{analysis.study.describe(smallest)}, with {parameters[smallest]:,.0f} instead of {size}"
        gap = f"difference {comparison.difference[smallest]:+.4f} ± {comparison.half[smallest]:.4f}"
        if kind == "equivalent":
            return [f"Equivalent within {comparison.margin:g} and smaller: {name} ({gap})."]
        return [f"No smaller configuration is shown to be equivalent; the smallest undecided one is {name} ({gap})."]
    tested = np.isfinite(comparison.adjusted) & (parameters < parameters[comparison.best])
    if tested.any():
        return ["Every smaller configuration that was tested is worse, or has diverged runs."]
    return ["No configuration that it was compared with has fewer parameters."]


def _next_seeds(analysis: Analysis, comparison: Comparison, with_command: bool) -> str:
    """The further seeds that would probably decide, and, on a line of its own, the command that trains just these."""
    undecided = [c for c in analysis.ranking.ranked if comparison.undecided[c]]
    if not undecided:
        return "Nothing is undecided: further seeds would only narrow the intervals."
    affordable = [c for c in undecided if comparison.further_seeds[c] <= AFFORDABLE]
    target = affordable[0] if affordable else min(undecided, key=lambda c: float(comparison.further_seeds[c]))
    seeds, name = float(comparison.further_seeds[target]), analysis.study.describe(target)
    repetitions = analysis.blocks.name
    if not math.isfinite(seeds):
        return f"Next: no affordable number of further {repetitions} would decide about {name}; a wider margin would."
    seeds_text = f"about {seeds:,.0f} further {repetitions}" if seeds > 1 else f"one more of the {repetitions}"
    sentence = f"Next: {seeds_text} would probably decide between the best and {name}"
    if not with_command:
        return f"{sentence}."
    command = further_command(analysis, (comparison.best, target), int(seeds))
    return f"{sentence}:\n{command}" if command else f"{sentence}; more data seeds (data.seed) give more {repetitions}."


def further_command(analysis: Analysis, configurations: Sequence[int], number: int) -> str | None:
    """The command that trains further seeds of some configurations in the sweep's directory; None for folds.

    One command where they differ in one key, otherwise one for each.
    """
    study, keys = analysis.study, analysis.blocks.keys
    if len(keys) != 1 or keys[0] == "data.fold":
        return None
    levels = [level for key in study.seeds if key.name == keys[0] for level in key.levels if level.isdecimal()]
    first_seed = max(map(int, levels), default=-1) + 1
    repeated = [f"{keys[0]}=range({first_seed},{first_seed + number})"]
    repeated += [f"{key.name}={','.join(key.levels)}" for key in study.seeds if key.name != keys[0]]
    settings = [_settings(analysis, c) for c in configurations]
    differing = [
        key for key in settings[0] if any(override_texts.get(key) != settings[0][key] for override_texts in settings)
    ]
    if len(differing) == 1 and all(override_texts.keys() == settings[0].keys() for override_texts in settings):
        [key] = differing
        settings = [settings[0] | {key: ",".join(dict.fromkeys(override_texts[key] for override_texts in settings))}]
    directory = study.directory
    where = f"name={directory.name}" if directory.parent.name == "multirun" else f"hydra.sweep.dir={directory}"
    table = ["record=table"] if (directory / TABLE).is_file() else []
    commands = [
        shell_commands.script(
            "train.py", "-m", where, *table, *(f"{k}={v}" for k, v in override_texts.items()), *repeated
        )
        for override_texts in settings
    ]
    return " && ".join(commands)


def _settings(analysis: Analysis, configuration: int) -> dict[str, str]:
    """The overrides of a configuration without its seeds; from the swept keys where its runs left none."""
    study = analysis.study
    run = study.members[configuration][0]
    seeds = {key.name for key in study.seeds}
    texts = run_files.overrides(study.directory, study.names[run])
    if texts is None:
        texts = [f"{k.name}={k.levels[k.codes[run]]}" for k in study.factors if k.levels[k.codes[run]] != ABSENT]
    run_texts = [word for word in texts if not word.startswith(run_files.OF_THE_SWEEP)]
    parsed = [override for override in map(overrides.parse, run_texts) if override.key not in seeds]
    return {override.text.removesuffix(f"={override.value_text}"): override.value_text or "" for override in parsed}


def method(analysis: Analysis, comparison: Comparison) -> list[str]:
    """How the comparisons were made, and on what assumption."""
    unit = analysis.blocks.name
    if comparison.method == "sign flips":
        sentence = (
            "Comparisons are family-wise: the largest difference is judged by its distribution over sign flips of "
            f"whole {unit} (Westfall & Young 1993, step-down); each resample chooses its own best. Assumption: "
            "differences between equal configurations are as often positive as negative."
        )
    else:
        reason = f"fewer than 6 shared {unit} do not let any resampling test reach 5 %"
        if comparison.sampling:
            reason = f"{unit} share training samples, so their signs are not independent"
        elif not comparison.paired:
            reason = f"configurations do not share their {unit} (standard errors are Welch's)"
        assumption = "a configuration's variance is its own"
        if comparison.prior:
            weight = (
                "" if math.isinf(comparison.prior) else f", which counts with {comparison.prior:.1f} degrees of freedom"
            )
            assumption += f" or, where that is larger, the one pooled over configurations{weight}"
        sentence = (
            f"Comparisons are family-wise, by the studentized range, since {reason}. Assumption: normal errors, and "
            f"{assumption}."
        )
    sentences = [sentence]
    if comparison.sampling:
        sentences.append(
            f"{unit.capitalize()} overlap in their training samples: standard errors are corrected by the resampled "
            f"t-test with {comparison.sampling:.3f} measured samples per training sample (Nadeau & Bengio 2003)"
            + (
                f", and the mean over the seeds of one of the {unit} counts once."
                if analysis.blocks.are_averaged
                else "."
            )
        )
    sentences.append("± after a difference is half the 95 % interval of this difference alone.")
    if comparison.margin is not None:
        sentences.append(
            f"Equivalent: two one-sided tests at 5 % find the difference smaller than {comparison.margin:g} "
            "(--margin), corrected by Holm. Undecided: neither better nor equivalent; the further seeds are those with "
            "which a difference as large as the one seen is decided with a probability of 80 %."
        )
    return sentences
