"""Searches with a pruner, disturbed until they end: killed, signalled, killed while a signal ends them, and so on.

Whatever came before, a search leaves what the same command leaves where nothing disturbs it: runs, table, the study
with its pruned trials and compared values, and the best trial.
"""

import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forks import Child, Ended, run
from inject import Fault
from optuna.trial import TrialState
from searches import CODES, PRUNED, SPACES, TOTALS, told_values, undisturbed, words_of
from stateful import table_rows
from sweeps import QUICK, Broken, finished, picture, untouched
from trial import Campaign, Case

from mlpexp.search.study_storage import load

TOTAL = TOTALS[-1]
SEEDS, FINAL, DATABASE = "hydra.sweeper.seeds=3", "hydra.sweeper.final_seeds=4", "hydra.sweeper.storage=sqlite"
FRAGILE = '''
import torch
from mlpexp.extend import activation

@activation
def fragile(x):
    """tanh, of which training in a stack fails once its input has grown."""
    if x.dim() == 3 and bool((x.abs().amax() > 6).item()):
        raise RuntimeError("the input is too large")
    return torch.tanh(x)
'''
# settings beside those of the pruner, and what they need
CONDITIONS = [
    "optimizer.name=sgd,adam",
    "optimizer.momentum=interval(0.5,0.95)",
    "hydra.sweeper.conditions={optimizer.momentum:{optimizer.name:sgd}}",
]
FURTHER: dict[str, list[str]] = {
    "": [],
    "seeds": [SEEDS],
    "final_seeds": [FINAL],
    "sqlite": [DATABASE],
    "seeds, final_seeds": [SEEDS, FINAL],
    "seeds, sqlite": [SEEDS, DATABASE],
    "final_seeds, sqlite": [FINAL, DATABASE],
    "seeds, final_seeds, sqlite": [SEEDS, FINAL, DATABASE],
    "seed=range": ["seed=range(1,4)"],
    "conditions": CONDITIONS,
    "warm start": ["hydra.sweeper.warm_start=multirun/earlier"],
    "table": ["record=table", "tracking.tensorboard=false", FINAL],
    "one by one": ["hydra.sweeper.batch_size=1"],
    "early stopping": ["early_stopping.patience=1"],
    "diverging": ["optimizer.lr=0.1,0.5,0.9,1e38", "model.activation=relu", FINAL],
    "all diverging": ["optimizer.lr=1e37,1e38,3e38", "model.activation=relu"],
    "raising": ["plugins=[fragile.py]", "model.activation=fragile,tanh", "optimizer.lr=0.1,0.5,2.5,5.0"],
    "saved states": ["stack.save_every_s=0.001", "trainer.max_epochs=15", "model.depth=1,2"],
    "grown": [f"hydra.sweeper.n_trials={TOTAL + 4}"],
    "accuracy": ["hydra.sweeper.objectives=[val/acc]", "optimizer.schedule=cosine"],
    "cmaes": ["hydra.sweeper.sampler=cmaes", "optimizer.momentum=interval(0,0.9)"],
    "qmc": ["hydra.sweeper.sampler=qmc", "optimizer.momentum=interval(0,0.9)"],
}
DISTURBANCES = 20


@dataclass(frozen=True)
class Combination:
    """A command that searches.

    Attributes:
        name: of the pruner and of the further settings.
        earlier: a command that is killed in the same directory before.
        code: with which the undisturbed command ends.
    """

    name: str
    words: list[str]
    earlier: list[str] | None = None
    code: int = 0


def combinations() -> list[Combination]:
    return [
        Combination(
            name=f"{pruner}, {name}." if name else f"{pruner}.",
            words=_replaced(words_of(pruner, TOTAL), further),
            earlier=words_of(pruner, TOTAL - 3) if name == "grown" else None,
            code=1 if name == "raising" else 0,
        )
        for pruner in PRUNED
        for name, further in FURTHER.items()
        if not (_names_seeds(SPACES[pruner]) and (SEEDS in further or _names_seeds(further)))
        and not (PRUNED[pruner]["pruner"] == "wilcoxon" and name == "warm start")  # refused
    ]


def _names_seeds(words: Sequence[str]) -> bool:
    return any(word.startswith("seed=") for word in words)


def _replaced(words: Sequence[str], further: Sequence[str]) -> list[str]:
    """The words, without those of keys that are given further on."""
    keys = {word.partition("=")[0] for word in further}
    return [*(word for word in words if word.partition("=")[0] not in keys), *further]


def killed(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    """A search with a pruner is killed at a random operation, and started again until it ends."""
    whole = {space: undisturbed(campaign.top, space, TOTAL) for space in campaign.few_of(list(PRUNED))}
    for space, expected in whole.items():
        count = run(campaign.place(), words_of(space, TOTAL), Fault()).operations
        for number in campaign.few([campaign.random.randrange(count) for _ in range(20)], 2):

            def case(place: Path, space: str = space, number: int = number, expected: Any = expected) -> None:
                words = words_of(space, TOTAL)
                ended = run(place, words, Fault(number, torn=True))
                if ended.code != -9:
                    raise Broken.by(ended, "not killed; ")
                before = finished(place)
                ended = run(place, words)
                if ended.code:
                    raise Broken.by(ended)
                untouched(place, before)
                found = picture(place), table_rows(place / "multirun/s"), told_values(place)
                if found != expected:
                    raise Broken(f"it left {str(found)[:1000]} in place of {str(expected)[:1000]}")

            yield f"{space}, before operation {number}", case


def disturbed_until_it_ends(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    """A search with a pruner is disturbed at random moments, again and again, also while it ends or is repaired."""
    for combination in campaign.few_of(combinations()):

        def case(place: Path, combination: Combination = combination) -> str:
            return _disturbed(campaign, place, combination)

        yield combination.name, case


def _disturbed(campaign: Campaign, place: Path, combination: Combination) -> str:
    """
    Returns:
        How often the search was disturbed.

    Raises:
        Broken: a finished run was trained again, or something else is left than by the undisturbed command.
    """
    words = combination.words
    (place / "fragile.py").write_text(FRAGILE)
    if "hydra.sweeper.warm_start=multirun/earlier" in words:
        _run(place, ["-m", *QUICK, "name=earlier", "optimizer.lr=0.05,0.3", "model.width=8,9", "trainer.max_epochs=5"])
    if combination.earlier:
        whole = _run(place, combination.earlier)
        shutil.rmtree(place / "multirun/s")
        child = Child(place, combination.earlier)
        child.wait_until(campaign.random.uniform(0.3, 0.9) * whole.seconds)
        child.kill()
        child.ended()
    begun = place / "begun"
    (place / "multirun").mkdir(exist_ok=True)
    shutil.copytree(place / "multirun", begun)
    expected, undisturbed_run = left_by(place, combination)
    count, few = 0, 2 if campaign.sample else DISTURBANCES
    while count < few:
        shutil.rmtree(place / "multirun")
        shutil.copytree(begun, place / "multirun")
        while count < few:
            before = finished(place)
            ended = _disturb(campaign, place, words, undisturbed_run)
            untouched(place, before)
            if ended.code == combination.code:
                break
            if ended.code not in (-9, *CODES.values()):
                raise Broken.by(ended)
            count += 1
        found, _ = left_by(place, combination)
        for name, value in expected.items():
            if found[name] != value:
                raise Broken(f"{name}: {_difference(found[name], value)}")
    return f"{count} times"


def _disturb(campaign: Campaign, place: Path, words: list[str], undisturbed_run: Ended) -> Ended:
    """Start a command that ends early, in one of several ways; it may also end before."""
    random, seconds = campaign.random, undisturbed_run.seconds
    how = random.choice(["killed", "killed", "killed at an operation", "killed while it begins", "signalled", "both"])
    if how == "killed at an operation":
        return run(place, words, Fault(random.randrange(undisturbed_run.operations), torn=random.random() < 0.5))
    if how == "killed while it begins":  # where it mends what an earlier kill has left
        return run(place, words, Fault(random.randrange(20), torn=random.random() < 0.5))
    child = Child(place, words)
    if how == "killed":
        if not child.wait_until(random.uniform(0, seconds)):
            child.kill()
        return child.ended()
    while not child.is_armed and not child.wait_until(0):
        time.sleep(0.002)
    moment = random.uniform(0, seconds)
    if not child.wait_until(moment):
        child.kill(random.choice(list(CODES)))
        if how == "both" and not child.wait_until(moment + random.uniform(0, 0.1)):
            child.kill(signal.SIGKILL)
    return child.ended()


def left_by(place: Path, combination: Combination) -> tuple[dict[str, Any], Ended]:
    """What the command leaves, by names: runs, table, all that the study says of trials, the best one."""
    ended = run(place, combination.words, Fault())
    if ended.code != combination.code:
        raise Broken.by(ended)
    sweep = place / "multirun/s"
    if (loaded := load(sweep)) is None:
        raise Broken("there is no study")
    trials = [
        (
            trial.state,
            trial.params,
            trial.values if trial.state == TrialState.COMPLETE else None,
            trial.intermediate_values,
            trial.user_attrs,
        )
        for trial in loaded[1].trials
    ]
    best = sweep / "optimization_results.yaml"
    left = {
        # without those that raised an error, of which the table tells
        "runs": picture(place, {path.parent.name for path in sweep.glob("*/metrics.csv")}),
        "table": table_rows(place / "multirun/s"),
        "objectives": loaded[0],
        "trials": trials,
        "best": best.read_text() if best.exists() else None,
    }
    return left, ended


def _difference(found: Any, expected: Any) -> str:
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        keys = [key for key in {**expected, **found} if found.get(key) != expected.get(key)]
        return "; ".join(
            f"{key} is {str(found.get(key))[:300]} in place of {str(expected.get(key))[:300]}" for key in keys[:3]
        )
    return f"{str(found)[:1000]} in place of {str(expected)[:1000]}"


def _run(place: Path, words: list[str]) -> Ended:
    ended = run(place, words)
    if ended.code:
        raise Broken.by(ended)
    return ended
