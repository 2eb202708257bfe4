"""`hydra.sweeper.sampler=gp`: ranks of trials, and what the process chooses by them."""

import math
import random
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy import stats

from mlpexp.search import samplers
from mlpexp.search.ranked_gp import normal_scores

SPACE = {
    "lr": FloatDistribution(0.001, 10, log=True),
    "width": IntDistribution(4, 64, log=True),
    "activation": CategoricalDistribution(["tanh", "relu"]),
}


def finished(*values: float, **state: Any) -> FrozenTrial:
    return create_trial(values=values or None, **state)


@pytest.mark.parametrize("direction", [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE])
def test_scores_are_normal_quantiles_of_the_ranks(direction: StudyDirection) -> None:
    values = [3.0, 1e300, -2.0, 3.0, 0.1, 3.0]
    sign = 1 if direction == StudyDirection.MINIMIZE else -1
    expected = stats.norm.ppf((stats.rankdata([sign * value for value in values]) - 0.5) / len(values))
    scores = normal_scores([finished(value) for value in values], [direction])
    assert scores == [[pytest.approx(score)] for score in expected]


def test_each_objective_has_ranks_of_its_own() -> None:
    scores = normal_scores([finished(1.0, 1.0), finished(2.0, 2.0)], [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE])
    assert scores == [[pytest.approx(-0.6745, abs=1e-4), pytest.approx(0.6745, abs=1e-4)], scores[0][::-1]]


def test_pruned_trials_come_after_those_with_values_and_diverged_ones_last() -> None:
    def pruned(**values: float) -> FrozenTrial:
        steps = {int(step[1:]): value for step, value in values.items()}
        return finished(state=TrialState.PRUNED, intermediate_values=steps)

    trials = [pruned(), pruned(e1=0.1), pruned(e1=0.1, e3=0.3), finished(9.0), pruned(e3=0.2), pruned(e1=math.nan)]
    scores = [score for (score,) in normal_scores(trials, [StudyDirection.MINIMIZE])]
    assert scores[3] < scores[4] < scores[2] < scores[1] < scores[0] == scores[5]


def generations(seed: int, *sizes: int) -> list[list[FrozenTrial]]:
    """Trials of a landscape with noise, its minimum at lr = 0.1 with relu; above lr = 1 runs diverge."""
    study, noise, portions = optuna.create_study(), random.Random(seed), []
    for number, size in enumerate(sizes):
        study.sampler = samplers.sampler("gp", seed, sum(sizes[:number]), 10)
        asked = [study.ask(SPACE) for _ in range(size)]
        for trial in asked:
            lr = trial.params["lr"]
            value = (math.log10(lr) + 1) ** 2 + (trial.params["activation"] != "relu") / 2 + noise.gauss(0, 0.1)
            if lr > 1:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, value)
        portions.append(study.get_trials(deepcopy=False)[sum(sizes[:number]) :])
    return portions


def test_it_learns_in_a_mixed_space_and_keeps_away_from_where_runs_diverge() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    first, second = generations(0, 12, 5)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1]) and random.getstate() == states[2]
    assert sum(trial.params["lr"] > 1 for trial in first) >= 2
    assert sum(trial.params["lr"] > 1 for trial in second) == 0
    assert sum(trial.params["activation"] == "relu" for trial in second) >= 4
    values = [trial.value for trial in second if trial.value is not None]
    assert np.median(values) < np.median([trial.value for trial in first if trial.value is not None]) / 2
    assert len({tuple(trial.params.values()) for trial in second}) == 5
    assert [trial.params for trial in generations(0, 12, 5)[1]] == [trial.params for trial in second]
