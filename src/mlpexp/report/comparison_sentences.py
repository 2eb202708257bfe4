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
    against, second, best = analysis.comparison, analysis.runner_up, analysis.best
    if against is None or second is None or best is None:
        return ["There is only one configuration with finite numbers, so there is nothing to compare it with."]
    if not np.isfinite(against.adjusted).any():
        name, number = analysis.study.describe(second), analysis.ranking.estimate(second, analysis.reported)
        gap = f"The runner-up, {name}, has {label(analysis.reported)} {number}"
        if analysis.seeds < 2:
            return [f"{gap}. One run per configuration: no intervals and no comparison are possible; {HINT}."]
        return [f"{gap}; no configuration has enough runs to be compared."]
    return [_how_sure(analysis, against, second), *_cheaper(analysis, against), _next(analysis, against, with_command)]


def _how_sure(analysis: Analysis, against: Comparison, second: int) -> str:
    higher = higher_is_better(analysis.reported)
    where = "test" if analysis.has_test else "validation"
    others = len(analysis.ranking.ranked) - 1
    answers = [against.answer(c, higher) for c in range(len(against.adjusted))]
    name = analysis.study.describe(second)
    detail = f"{answers[second]} (difference {against.difference[second]:+.4f} ± {against.half[second]:.4f}, "
    detail += f"{p_value(against.adjusted[second])})"
    if others == 1:
        return f"The only other, {name}, is {detail} on {where} data."
    number = {word: answers.count(word) for word in ("worse", "better", "equivalent", "undecided")}
    are = "is" if number["worse"] == 1 else "are"
    parts = [f"Of the {others:,} others {number['worse']:,} {are} worse on {where} data (family-wise 5 %)"]
    if number["better"]:
        parts.append(f"{number['better']:,} better")
    if against.margin is not None:
        parts.append(f"{number['equivalent']:,} equivalent within {against.margin:g}")
    parts.append(f"{number['undecided']:,} undecided")
    if untested := others - sum(number.values()):
        parts.append(f"{untested:,} not testable")
    if not answers[second]:
        detail = "not testable: it has too few runs"
    return f"{', '.join(parts)}; the runner-up, {name}, is {detail}."


def _cheaper(analysis: Analysis, against: Comparison) -> list[str]:
    """The smallest configuration that is equivalent, or else the smallest that is undecided."""
    parameters, ranked = analysis.ranking.means["num_parameters"], analysis.ranking
    sound = ranked.diverged <= ranked.diverged[against.best]
    smaller = sound & (parameters < parameters[against.best])
    size = f"{parameters[against.best]:,.0f} parameters"
    for kind, mask in (("equivalent", against.equivalent), ("undecided", against.undecided)):
        candidates = np.flatnonzero(mask & smaller)
        if not len(candidates):
            continue
        least = int(candidates[np.argmin(parameters[candidates])])
        name = f"{analysis.study.describe(least)}, with {parameters[least]:,.0f} instead of {size}"
        gap = f"difference {against.difference[least]:+.4f} ± {against.half[least]:.4f}"
        if kind == "equivalent":
            return [f"Equivalent within {against.margin:g} and smaller: {name} ({gap})."]
        return [f"No smaller configuration is shown to be equivalent; the smallest undecided one is {name} ({gap})."]
    tested = np.isfinite(against.adjusted) & (parameters < parameters[against.best])
    if tested.any():
        return ["Every smaller configuration that was tested is worse, or has diverged runs."]
    return ["No other configuration that was tested is smaller."]


def _next(analysis: Analysis, against: Comparison, with_command: bool) -> str:
    """The further seeds that would probably decide, and, on a line of its own, the command that trains just these."""
    undecided = [c for c in analysis.ranking.ranked if against.undecided[c]]
    if not undecided:
        return "Nothing is undecided: further seeds would only narrow the intervals."
    affordable = [c for c in undecided if against.further_seeds[c] <= AFFORDABLE]
    target = affordable[0] if affordable else min(undecided, key=lambda c: float(against.further_seeds[c]))
    seeds, name = float(against.further_seeds[target]), analysis.study.describe(target)
    what = analysis.blocks.name
    if not math.isfinite(seeds):
        return f"Next: no affordable number of further {what} would decide about {name}; a wider margin would."
    many = f"about {seeds:,.0f} further {what}" if seeds > 1 else f"one more of the {what}"
    said = f"Next: {many} would probably decide between the best and {name}"
    if not with_command:
        return f"{said}."
    command = further_command(analysis, (against.best, target), int(seeds))
    return f"{said}:\n{command}" if command else f"{said}; more data seeds (data.seed) give more {what}."


def further_command(analysis: Analysis, configurations: Sequence[int], number: int) -> str | None:
    """The command that trains further seeds of some configurations in the sweep's directory; None for folds.

    One command where they differ in one key, otherwise one for each.
    """
    study, keys = analysis.study, analysis.blocks.keys
    if len(keys) != 1 or keys[0] == "data.fold":
        return None
    used = [level for key in study.seeds if key.name == keys[0] for level in key.levels if level.isdecimal()]
    first = max(map(int, used), default=-1) + 1
    repeated = [f"{keys[0]}=range({first},{first + number})"]
    repeated += [f"{key.name}={','.join(key.levels)}" for key in study.seeds if key.name != keys[0]]
    given = [_settings(analysis, c) for c in configurations]
    differing = [key for key in given[0] if any(words.get(key) != given[0][key] for words in given)]
    if len(differing) == 1 and all(words.keys() == given[0].keys() for words in given):
        [key] = differing
        given = [given[0] | {key: ",".join(dict.fromkeys(words[key] for words in given))}]
    place = study.directory
    where = f"name={place.name}" if place.parent.name == "multirun" else f"hydra.sweep.dir={place}"
    table = ["record=table"] if (place / TABLE).is_file() else []
    commands = [
        shell_commands.script("train.py", "-m", where, *table, *(f"{k}={v}" for k, v in words.items()), *repeated)
        for words in given
    ]
    return " && ".join(commands)


def _settings(analysis: Analysis, configuration: int) -> dict[str, str]:
    """The overrides of a configuration without its seeds; from the swept keys where its runs left none."""
    study = analysis.study
    run = study.members[configuration][0]
    seeds = {key.name for key in study.seeds}
    words = run_files.overrides(study.directory, study.names[run])
    if words is None:
        words = [f"{k.name}={k.levels[k.codes[run]]}" for k in study.factors if k.levels[k.codes[run]] != ABSENT]
    kept = [word for word in words if not word.startswith(run_files.OF_THE_SWEEP)]
    given = [override for override in map(overrides.parse, kept) if override.key not in seeds]
    return {override.text.removesuffix(f"={override.value_text}"): override.value_text or "" for override in given}


def method(analysis: Analysis, against: Comparison) -> list[str]:
    """How the comparisons were made, and on what assumption."""
    what = analysis.blocks.name
    if against.method == "sign flips":
        how = (
            "Comparisons are family-wise: the largest difference is judged by its distribution over sign flips of "
            f"whole {what} (Westfall & Young 1993, step-down); each resample chooses its own best. Assumption: "
            "differences between equal configurations are as often positive as negative."
        )
    else:
        why = f"fewer than 6 shared {what} do not let any resampling test reach 5 %"
        if against.sampling:
            why = f"{what} share training samples, so their signs are not independent"
        elif not against.paired:
            why = f"configurations do not share their {what} (standard errors are Welch's)"
        own = "a configuration's variance is its own"
        if against.prior:
            weight = "" if math.isinf(against.prior) else f", which counts with {against.prior:.1f} degrees of freedom"
            own += f" or, where that is larger, the one pooled over configurations{weight}"
        how = (
            f"Comparisons are family-wise, by the studentized range, since {why}. Assumption: normal errors, and {own}."
        )
    sentences = [how]
    if against.sampling:
        sentences.append(
            f"{what.capitalize()} overlap in their training samples: standard errors are corrected by the resampled "
            f"t-test with {against.sampling:.3f} measured samples per training sample (Nadeau & Bengio 2003)"
            + (
                f", and the mean over the seeds of one of the {what} counts once."
                if analysis.blocks.are_averaged
                else "."
            )
        )
    sentences.append("± after a difference is half the 95 % interval of this difference alone.")
    if against.margin is not None:
        sentences.append(
            f"Equivalent: two one-sided tests at 5 % find the difference smaller than {against.margin:g} (--margin), "
            "corrected by Holm. Undecided: neither better nor equivalent; the further seeds are those with which a "
            "difference as large as the one seen is decided with a probability of 80 %."
        )
    return sentences
