"""The unit of work of a sweep: the same outcomes and files whether it travelled as plain data or not."""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mlpexp.config import checks
from mlpexp.config.overrides import RunSpec
from mlpexp.config.schema import Config
from mlpexp.sweep import work_unit
from mlpexp.sweep.jobs import Job
from mlpexp.sweep.work_unit import Unit
from mlpexp.training import trainer_setup


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with trainer_setup.quiet():
        yield


def job(place: Path, number: int, config: Config) -> Job:
    place.mkdir(parents=True)
    return Job(
        spec=RunSpec(number, ()),
        output_dir=str(place),
        overrides=(f"seed={config.seed}",),
        config=config,
        place=str(place),
        log_name="train.log",
        env_set={},
        hydra=lambda spec: OmegaConf.create({}),  # as the composer's, it does not travel
    )


def unit(place: Path, seeds: Sequence[int]) -> Unit:
    configs = [checks.parse({"seed": seed, "trainer": {"max_epochs": 2}}) for seed in seeds]
    jobs = tuple(job(place / str(i), i, cfg) for i, cfg in enumerate(configs))
    return Unit(places=tuple(range(10, 10 + len(seeds))), jobs=jobs)


def numbers(place: Path, runs: int) -> list[str]:
    return [(place / str(i) / "metrics.csv").read_text() for i in range(runs)]


def test_a_unit_that_travelled_leaves_the_same_numbers(tmp_path: Path) -> None:
    here = dict(work_unit.work([unit(tmp_path / "here", [1, 2, 3])]))
    sent = pickle.loads(pickle.dumps(unit(tmp_path / "sent", [1, 2, 3]).packed()))
    there = dict(work_unit.work([sent]))
    assert list(here) == list(there) == [10, 11, 12]
    for place, outcome in here.items():
        assert outcome.result and there[place].result
        assert there[place].result.metrics == outcome.result.metrics
    assert numbers(tmp_path / "here", 3) == numbers(tmp_path / "sent", 3)


def test_a_run_alone_travels_with_its_whole_configuration(tmp_path: Path) -> None:
    one = job(tmp_path / "run", 0, Config())
    one = replace(one, hydra=lambda spec: OmegaConf.create({"hydra": {"job": {"num": 7}}}))
    sent = pickle.loads(pickle.dumps(Unit(places=(0,), jobs=(one,), alone=True).packed()))
    assert sent.jobs[0].hydra(sent.jobs[0].spec).hydra.job.num == 7


def test_of_a_failing_stack_only_the_run_whose_fault_it_is_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_stack = work_unit.train_stack

    def fails(configs: Sequence[Config], *more: Any, **options: Any) -> Any:
        if any(cfg.seed == 3 for cfg in configs):
            raise ValueError("three is not to be had")
        return train_stack(configs, *more, **options)

    monkeypatch.setattr(work_unit, "train_stack", fails)
    ended = dict(work_unit.work([unit(tmp_path, [1, 2, 3, 4])]))
    assert [ended[place].is_done for place in (10, 11, 12, 13)] == [True, True, False, True]
    assert str(ended[12].error) == "three is not to be had"
    assert "ValueError: three is not to be had" in (tmp_path / "2" / "train.log").read_text()
    undisturbed = tmp_path / "undisturbed"
    dict(work_unit.work([unit(undisturbed, [1, 2, 4])]))
    assert [(tmp_path / str(i) / "metrics.csv").read_text() for i in (0, 1, 3)] == numbers(undisturbed, 3)
