"""`hydra.sweeper.sampler=gp`: Optuna's Gaussian process with noise, on the ranks of the trials.

Losses of a search span orders of magnitude and their least values are in part lucky. So the process does not see the
values but normal scores of their ranks, and it takes part of their differences for noise. Trials without a value (a run
diverged) and pruned ones, which Optuna's sampler ignores, have the worst ranks, so that it keeps away from them.
"""

import math
import warnings
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

RANKED = (TrialState.COMPLETE, TrialState.PRUNED)


class RankedGPSampler(BaseSampler):
    """Chooses keys that all trials have by the process, the others at random."""

    def __init__(self, seed: int) -> None:
        self._random = RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._process = GPSampler(seed=seed, deterministic_objective=False, warn_independent_sampling=False)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        finished = study.get_trials(deepcopy=False, states=RANKED)
        common = set.intersection(*(set(trial.distributions) for trial in finished)) if finished else set()
        return {
            key: distribution
            for key, distribution in (finished[0].distributions.items() if finished else ())
            if key in common and not distribution.single()
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        ranked = optuna.create_study(directions=["minimize"] * len(study.directions))
        finished = study.get_trials(deepcopy=False, states=RANKED)
        for earlier, values in zip(finished, normal_scores(finished, study.directions), strict=True):
            params = {key: earlier.params[key] for key in search_space}
            ranked.add_trial(create_trial(params=params, distributions=search_space, values=values))
        for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if other.number != trial.number and search_space.keys() <= other.params.keys():
                params = {key: other.params[key] for key in search_space}
                ranked.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=search_space))
        asked = ranked.ask()  # the process writes its choice into the study that it is given
        return self._process.sample_relative(ranked, ranked.get_trials(deepcopy=False)[asked.number], search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def normal_scores(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[list[float]]:
    """Normal quantiles of the ranks, one column per objective; the least is the best, equal values have equal scores.

    Pruned trials come after those with values, those that were pruned late first; trials without any value come last.
    """
    columns = []
    for index, direction in enumerate(directions):
        sign = -1 if direction == StudyDirection.MAXIMIZE else 1
        keys = [_key(trial, index, sign) for trial in trials]
        ordered = sorted(keys)
        first = {key: number for number, key in reversed(list(enumerate(ordered)))}
        last = {key: number for number, key in enumerate(ordered)}
        middle = {key: (first[key] + last[key] + 1) / 2 / len(keys) for key in last}
        columns.append([NormalDist().inv_cdf(middle[key]) for key in keys])
    return [list(row) for row in zip(*columns, strict=True)]


def _key(trial: FrozenTrial, index: int, sign: int) -> tuple[float, float]:
    if trial.state == TrialState.COMPLETE:
        return -math.inf, sign * trial.values[index]
    reported = [(step, value) for step, value in trial.intermediate_values.items() if math.isfinite(value)]
    if not reported:
        return math.inf, 0.0
    step, value = max(reported)
    return -step, sign * value
