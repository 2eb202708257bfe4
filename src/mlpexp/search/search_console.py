"""What a person sees of a search, and `optimization_results.yaml`."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from mlpexp.search.search_space import Space
from mlpexp.store import atomic_files

RESULTS = "optimization_results.yaml"
SHOWN = 20  # of a front


def generation(study: optuna.Study, names: Sequence[str], numbers: Sequence[int], total: int) -> None:
    """One line, e.g. `trials 51-100 of 500: best val/loss 0.0912, 1 failed`."""
    own = [trial for trial in study.get_trials(deepcopy=False) if trial.number in set(numbers)]
    line = f"trials {numbers[0] + 1:,}-{numbers[-1] + 1:,} of {total:,}: {_best(study, names)}"
    if failed := sum(trial.state == TrialState.FAIL for trial in own):
        line += f", {failed:,} failed"
    print(line, flush=True)


def explain(space: Space, sampler: str, num_trials: int, batch_size: int, names: Sequence[str]) -> None:
    """A dry run."""
    print(f"{num_trials:,} trials by sampler={sampler}, {batch_size:,} at a time, for {', '.join(names)}")
    for key in space.distributions:
        print(f"  {space.typed[key]}")
    if space.repetitions:
        runs = 1
        for texts in space.repetitions.values():
            runs *= len(texts)
        print(f"each trial is the mean of {runs:,} runs: {', '.join(space.typed[key] for key in space.repetitions)}")
    print("dry run: nothing was trained or written")


def warn(line: str) -> None:
    print(line, file=sys.stderr)


def place(ended: JobReturn) -> str:
    """The name of a run's directory, where its launcher knows it."""
    directory = getattr(ended, "directory", None)
    return directory.name if directory is not None else ""


def conclude(
    study: optuna.Study,
    names: Sequence[str],
    space: Space,
    directory: Path,
    places: Mapping[tuple[tuple[str, ...], ...], str],
) -> None:
    """Say which trials are the best, and write it down."""
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    if not complete:
        warn(f"none of {len(trials):,} trials has an answer: {_reasons(failed)}")
        return
    if len(names) == 1:
        best = study.best_trial
        found: dict[str, object] = {"name": "optuna", "best_params": _typed(space, best), "best_value": best.value}
        print(f"best of {len(trials):,} trials: number {best.number + 1:,}, {names[0]} {best.value:.6g}")
        for key, value in space.settings(best.params).items():
            print(f"  {key}={value}")
        if where := places.get(tuple(space.runs(best.params))):
            print(f"  its run: {where}")
    else:
        front = sorted(study.best_trials, key=lambda trial: trial.values)
        found = {
            "name": "optuna",
            "solutions": [{"params": _typed(space, trial), "values": list(trial.values)} for trial in front],
        }
        _front(front, names, space, len(trials))
    if failed:
        warn(f"{len(failed):,} of {len(trials):,} trials failed: {_reasons(failed)}")
    atomic_files.write(directory / RESULTS, OmegaConf.to_yaml(OmegaConf.create(found)))


def _front(front: Sequence[FrozenTrial], names: Sequence[str], space: Space, count: int) -> None:
    print(f"{len(front):,} of {count:,} trials that no other beats in {' and '.join(names)}")
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
        console.print(f"and {len(front) - SHOWN:,} more, see {RESULTS}", highlight=False)


def _best(study: optuna.Study, names: Sequence[str]) -> str:
    if len(names) > 1:
        return f"{len(study.best_trials):,} on the front of {' and '.join(names)}"
    try:
        return f"best {names[0]} {study.best_value:.6g}"
    except ValueError:
        return "none has an answer yet"


def _reasons(failed: Sequence[FrozenTrial]) -> str:
    reasons = [str(trial.user_attrs.get("problem", "unknown")) for trial in failed]
    most = max(set(reasons), key=reasons.count)
    return f"{most} ({reasons.count(most):,} times)" if reasons.count(most) > 1 else most


def _typed(space: Space, trial: FrozenTrial) -> dict[str, object]:
    """The values as they were trained, with their types."""
    texts = space.settings(trial.params)
    return {key: OmegaConf.create({"value": None} | _read(text)).value for key, text in texts.items()}


def _read(text: str) -> dict[str, object]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    value = OverridesParser.create().parse_override(f"value={text}").value()
    return {"value": getattr(value, "text", value)}
