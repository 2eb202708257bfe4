"""`hydra.sweeper.final_seeds`: the best trials of a search, trained with further seeds.

The best of many noisy values is biased, so the best trial is chosen by its mean over more seeds.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mlpexp.config.overrides import parse
from mlpexp.search.objectives import OTHERS, Measured
from mlpexp.search.search_space import Space
from mlpexp.search.study_storage import STOPPED

NUM_FINALISTS = 5
DEFAULT_SEEDS = 4
MIN_TRIALS = 40  # of a search that trains its best trials with further seeds by default: with fewer, they cost too much


class Finalist(NamedTuple):
    """A trial, and the mean of the objective over its own and the further seeds."""

    trial: FrozenTrial
    mean: float


def default_seeds(objectives: Sequence[str], num_trials: int) -> int | None:
    """Further seeds of the best trials where `hydra.sweeper.final_seeds` is not given; None where there are none."""
    return DEFAULT_SEEDS if have_noise(objectives) and num_trials >= MIN_TRIALS else None


def have_noise(objectives: Sequence[str]) -> bool:
    """Whether the best trial is chosen by one value that depends on the seed."""
    return len(objectives) == 1 and objectives[0] not in OTHERS


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best trials of a study with one objective, the best one first, each configuration once.

    Those of which a pruner has left out seeds are not among them: their means are over other numbers of seeds.
    """
    trained = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    complete = [trial for trial in trained if STOPPED not in trial.user_attrs]
    complete.sort(key=lambda trial: trial.values[0], reverse=study.direction == StudyDirection.MAXIMIZE)
    different: dict[frozenset[tuple[str, object]], FrozenTrial] = {}
    for trial in complete:
        different.setdefault(frozenset(trial.params.items()), trial)
    return list(different.values())[:NUM_FINALISTS]


def further_seeds(space: Space, count: int, seed: int) -> tuple[Space, int]:
    """The space whose trials have the `count` seeds that follow those of `space`; and how many seeds that has.

    Args:
        seed: of the configuration, for a space that does not name seeds.
    """
    key = next((key for key in space.typed if key.lstrip("+") == "seed"), "seed")
    seeds = [int(parse(text).value) for text in space.repetitions.get(key, [])] or [seed]
    first_seed = max(seeds) + 1
    space = replace(
        space,
        typed=space.typed | {key: f"{key}=range({first_seed},{first_seed + count})"},
        repetitions=space.repetitions | {key: [f"{key}={number}" for number in range(first_seed, first_seed + count)]},
        fixed={name: text for name, text in space.fixed.items() if name != key},
    )
    return space, len(seeds)


def ranked(
    study: optuna.Study, trials: Sequence[FrozenTrial], outcomes: Sequence[Measured], share: float
) -> list[Finalist]:
    """The trials by their means, the best one first; without those of which a further run has no value.

    Args:
        outcomes: outcomes of the trials with further seeds.
        share: of further seeds among all.
    """
    means = [
        Finalist(trial, (1 - share) * trial.values[0] + share * outcome.values[0])
        for trial, outcome in zip(trials, outcomes, strict=True)
        if outcome.values is not None
    ]
    return sorted(means, key=lambda finalist: finalist.mean, reverse=study.direction == StudyDirection.MAXIMIZE)
