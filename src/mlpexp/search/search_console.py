"""The terminal output of a search, and `optimization_results.yaml`."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from mlpexp.config.overrides import parse
from mlpexp.runtime.rich_console import Console
from mlpexp.runtime.terminal import counted, say
from mlpexp.search.finalists import DEFAULT_SEEDS, NUM_FINALISTS, Finalist, have_noise
from mlpexp.search.search_space import Runs, Space
from mlpexp.search.study_storage import PROBLEM, STOPPED
from mlpexp.store import atomic_files
from mlpexp.store.file_names import SEARCH_RESULTS
from mlpexp.sweep.sweep_console import NOTHING_DONE

if TYPE_CHECKING:
    from mlpexp.search.search_plan import Plan

SHOWN = 20  # trials of a front


def description(plan: "Plan", done: int = 0) -> str:
    """One line, e.g. `search of 40 trials: 4 generations of 10, sampler tpe, objective val/loss`."""
    remaining = max(0, plan.num_trials - done)
    full, last_size = divmod(remaining, plan.batch_size)
    num_generations = full + bool(last_size)
    generations = f"{counted(num_generations, 'generation')} of {'up to ' * bool(full and last_size)}"
    generations += f"{min(plan.batch_size, remaining):,}"
    before = f"{done:,} recorded before, then " if done else ""
    objectives = f"objective{'s' * (len(plan.names) != 1)} {', '.join(plan.names)}"
    if plan.final_seeds:
        objectives += f", then the best {NUM_FINALISTS} with {counted(plan.final_seeds, 'further seed')}"
    trials = f"{before}{generations}" if remaining else "recorded before"
    return f"search of {counted(plan.num_trials, 'trial')}: {trials}, sampler {plan.sampler}, {objectives}"


def explanation(plan: "Plan") -> list[str]:
    """What a search would do, in lines."""
    space = plan.space
    lines = [description(plan), *(f"  {space.typed[key]}" for key in space.distributions)]
    if space.repetitions:
        runs = prod(map(len, space.repetitions.values()))
        repetitions = ", ".join(space.typed[key] for key in space.repetitions)
        lines.append(f"each trial is the mean of {counted(runs, 'run')}: {repetitions}")
    return [*lines, NOTHING_DONE]


def generation(study: optuna.Study, names: Sequence[str], trials: Sequence[FrozenTrial], total: int) -> None:
    """One line, e.g. `trials 51-100 of 500: best val/loss 0.0912, 1 failed`."""
    first, last = trials[0].number + 1, trials[-1].number + 1
    numbers = f"trial {first:,}" if first == last else f"trials {first:,}-{last:,}"
    line = f"{numbers} of {total:,}: {_best(study, names)}"
    if failed := sum(PROBLEM in trial.user_attrs for trial in trials):
        line += f", {failed:,} failed"
    say(line)


def progress(study: optuna.Study, names: Sequence[str], total: int) -> str:
    """One line, e.g. `30 of 100 trials: 9 trained, 14 pruned, 7 in training, best val/loss 0.0912`."""
    trials = study.get_trials(deepcopy=False)
    failed = sum(PROBLEM in trial.user_attrs for trial in trials)
    pruned = sum(
        STOPPED in trial.user_attrs or (trial.state == TrialState.PRUNED and PROBLEM not in trial.user_attrs)
        for trial in trials
    )
    training = sum(not trial.state.is_finished() for trial in trials)
    counts = [(len(trials) - failed - pruned - training, "trained"), (pruned, "pruned"), (failed, "failed")]
    counts += [(training, "in training")] if training else []
    text = ", ".join(f"{count:,} {label}" for count, label in counts if count or label == "pruned")
    return f"{len(trials):,} of {counted(total, 'trial')}: {text}, {_best(study, names)}"


def conclude(
    study: optuna.Study,
    plan: "Plan",
    directory: Path,
    places: Mapping[Runs, Sequence[str]],
    finalists: Sequence[Finalist],
) -> None:
    """Print the best trials and write them to a file.

    Args:
        places: the names of the directories of each trial's runs.
        finalists: the best trials by their means over further seeds, if there are any.
    """
    names, space = plan.names, plan.space
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    failed = [trial for trial in trials if PROBLEM in trial.user_attrs]
    if not complete:
        say(f"none of {counted(len(trials), 'trial')} has an outcome: {_reasons(failed)}", error=True)
        return
    if len(names) == 1:
        best, value = finalists[0] if finalists else (study.best_trial, study.best_value)
        results: dict[str, object] = {"name": "optuna", "best_params": _typed(space, best), "best_value": value}
        line = f"best of {counted(len(trials), 'trial')}: number {best.number + 1:,}, {names[0]} {value:.6g}"
        if finalists and plan.final_seeds:
            line += f", the mean with {counted(plan.final_seeds, 'further seed')} ({best.value:.6g} without)"
            results["finalists"] = [
                {"trial": trial.number + 1, "mean": mean, "value": trial.value, "params": _typed(space, trial)}
                for trial, mean in finalists
            ]
        elif plan.final_seeds:
            say("no trial among the best has a value with all further seeds; the best without is given", error=True)
        say(line)
        for key, text in space.settings(best.params).items():
            say(f"  {key}={text}")
        if where := places.get(space.runs(best.params)):
            say(f"  its run: {where[0]}")
        if plan.final_seeds is None and have_noise(names):
            say(
                "the best of many values is in part a lucky one: the same command with hydra.sweeper.final_seeds="
                f"{DEFAULT_SEEDS} compares the best {NUM_FINALISTS} by their means with {DEFAULT_SEEDS} further seeds"
            )
    else:
        front = sorted(study.best_trials, key=lambda trial: trial.values)
        results = {
            "name": "optuna",
            "solutions": [{"params": _typed(space, trial), "values": list(trial.values)} for trial in front],
        }
        _front(front, names, space, len(trials))
    if failed:
        say(f"{len(failed):,} of {counted(len(trials), 'trial')} failed: {_reasons(failed)}", error=True)
    atomic_files.write(directory / SEARCH_RESULTS, OmegaConf.to_yaml(OmegaConf.create(results)))


def _front(front: Sequence[FrozenTrial], names: Sequence[str], space: Space, count: int) -> None:
    say(f"{len(front):,} of {counted(count, 'trial')} that no other beats in {' and '.join(names)}")
    table = Table(header_style="bold")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for key in space.distributions:
        table.add_column(key.lstrip("+").rsplit(".", 1)[-1])
    for trial in front[:SHOWN]:
        table.add_row(*(f"{value:.6g}" for value in trial.values), *space.settings(trial.params).values())
    console = Console()
    console.print(table)
    if len(front) > SHOWN:
        console.print(f"and {len(front) - SHOWN:,} more, see {SEARCH_RESULTS}", highlight=False)


def _best(study: optuna.Study, names: Sequence[str]) -> str:
    if len(names) > 1:
        return f"{len(study.best_trials):,} on the front of {' and '.join(names)}"
    try:
        return f"best {names[0]} {study.best_value:.6g}"
    except ValueError:
        return "no trial has an outcome yet"


def _reasons(failed: Sequence[FrozenTrial]) -> str:
    reasons = [str(trial.user_attrs.get(PROBLEM, "unknown")) for trial in failed]
    reason = max(dict.fromkeys(reasons), key=reasons.count)  # of equally frequent ones the first
    return f"{reason} ({reasons.count(reason):,} times)" if reasons.count(reason) > 1 else reason


def _typed(space: Space, trial: FrozenTrial) -> dict[str, object]:
    """The values as they were trained, with their types."""
    return {key: parse(f"{key}={text}").value for key, text in space.settings(trial.params).items()}
