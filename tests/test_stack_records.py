"""What a stack keeps in arrays over its runs against the same of each run alone."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from mlpexp.config.schema import Config, EarlyStoppingConfig
from mlpexp.config.training_config import OptimizerConfig, TrainerConfig
from mlpexp.models.stack_engine import LearningRates
from mlpexp.models.stack_records import StackProgress, StackRecords
from mlpexp.models.training_state import RunRecord
from mlpexp.nn.early_stopping import Progress
from mlpexp.nn.schedules import SCHEDULES, Plateau, rate_factor

COLUMNS = ("val/loss", "val/acc")
VALUES = (0.5, 0.25, 0.2500001, 1.0, 2.0, math.nan, math.inf, -math.inf)


def comparable(progress: Progress) -> list[str]:
    return [repr(value) for value in vars(progress).values()]  # NaN equals NaN, 1 is not 1.0


@pytest.mark.parametrize("seed", range(20))
def test_the_progress_of_a_stack_is_that_of_each_of_its_runs(seed: int):
    draw = random.Random(seed)
    alone = [
        Progress.of(
            draw.choice(COLUMNS),
            EarlyStoppingConfig(patience=draw.choice([None, 1, 2, 3]), min_delta=draw.choice([0.0, 1e-3, 0.5])),
            draw.choice([0, 0, 3]),
        )
        for _ in range(40)
    ]
    together = [replace(progress) for progress in alone]
    stack = StackProgress(together)
    training = list(range(len(alone)))
    for epoch in range(8):
        values = [draw.choice(VALUES) for _ in training]
        best = stack.update(np.array(training), epoch, np.array(values))
        assert best.tolist() == [alone[run].update(epoch, value) for run, value in zip(training, values, strict=True)]
        training = [run for run in training if not stack.stopped[run]]
        assert training == [run for run, progress in enumerate(alone) if not progress.stopped]
    stack.write()
    assert [comparable(progress) for progress in together] == [comparable(progress) for progress in alone]


def test_the_records_of_a_stack_are_those_of_each_of_its_runs():
    draw = random.Random(0)
    configs = [
        Config(
            seed=seed,
            monitor=COLUMNS[seed % 2],
            trainer=TrainerConfig(max_epochs=4 + seed % 3),
            early_stopping=EarlyStoppingConfig(patience=None if seed % 4 else 1),
        )
        for seed in range(12)
    ]
    alone, stack = ([RunRecord.of(cfg) for cfg in configs] for _ in range(2))
    records = StackRecords(configs, stack)
    for epoch in range(6):
        training = np.flatnonzero(~records.ended).tolist()
        numbers = np.array([[draw.choice(VALUES) for _ in training] for _ in COLUMNS])
        further = [{"train/more": float(run)} if run % 2 else {} for run in training] if epoch % 2 else None
        improved, monitored = records.add(training, epoch, COLUMNS, numbers, further)
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in numbers.T.tolist()]
        rows = rows if further is None else [row | more for row, more in zip(rows, further, strict=True)]
        best = [alone[run].add(row, configs[run].monitor) for run, row in zip(training, rows, strict=True)]
        assert improved == [place for place, is_best in enumerate(best) if is_best]
        expected = [row[configs[run].monitor] for run, row in zip(training, rows, strict=True)]
        np.testing.assert_array_equal(monitored, expected)
        ended = [record.has_ended(cfg.trainer.max_epochs) for record, cfg in zip(alone, configs, strict=True)]
        assert records.ended.tolist() == ended
        trained = sum(len(record.history) for record in alone)
        lengths = [
            len(record.history) if end else cfg.trainer.max_epochs
            for record, end, cfg in zip(alone, ended, configs, strict=True)
        ]
        at_least = len(alone) * trained / sum(lengths)  # where no further run stops early
        if sum(lengths) < sum(cfg.trainer.max_epochs for cfg in configs) and not all(ended):
            assert at_least < records.trained_runs < len(alone)
        else:
            assert records.trained_runs == pytest.approx(at_least)
        if epoch == 2:
            assert repr(records.runs) == repr(alone)
    assert repr(records.runs) == repr(alone)


@pytest.mark.parametrize("by_parameter", [False, True])
def test_the_learning_rates_of_a_stack_are_those_of_each_of_its_runs(by_parameter: bool):
    steps, draw = 3, random.Random(0)
    shared = [
        OptimizerConfig(lr=0.1 + 0.01 * i, schedule=name, warmup_epochs=i % 2, patience=0)
        for i, name in enumerate(SCHEDULES)
    ]
    configs = [
        Config(seed=seed, optimizer=draw.choice(shared), trainer=TrainerConfig(max_epochs=draw.choice([4, 6])))
        for seed in range(40)
    ]
    pairs = torch.rand(2, len(configs), 2, dtype=torch.float64) if by_parameter else None
    rates = LearningRates(configs, [RunRecord.of(cfg) for cfg in configs], steps, pairs)
    plateaus = [Plateau(cfg.optimizer, cfg.monitor) for cfg in configs]
    for epoch in range(6):
        runs = [run for run, cfg in enumerate(configs) if cfg.trainer.max_epochs > epoch]
        if epoch == 3:  # one value for all steps of the epoch
            runs = [run for run in runs if configs[run].optimizer.schedule in ("cosine", "plateau", "step")]

        def factor(run: int, step: int, epoch: int = epoch) -> float:
            settings, epochs = configs[run].optimizer, configs[run].trainer.max_epochs
            return rate_factor(settings, epoch, epochs, step=step, steps=steps, reduced=plateaus[run].factor)

        table = [[factor(run, step) for run in runs] for step in range(steps)]
        expected = torch.tensor(table, dtype=torch.float64)  # (S, A)
        expected = expected[0] if epoch == 3 else expected
        actual = rates.in_epoch(runs, epoch)
        if pairs is None:
            lr = torch.tensor([configs[run].optimizer.lr for run in runs], dtype=torch.float64)
            assert isinstance(actual, torch.Tensor)
            assert torch.equal(actual, lr * expected)
        else:
            assert all(torch.equal(row, base[runs, 0] * expected) for row, base in zip(actual, pairs, strict=True))
        monitored = [draw.choice([0.5, 1.0]) for _ in runs]
        rates.update_plateaus(runs, monitored)
        for run, value in zip(runs, monitored, strict=True):
            plateaus[run].update(value)
    assert any(plateau.factor < 1 for plateau in plateaus)


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_training_that_is_left_is_expected_by_the_rate_at_which_runs_stop_early(rate: float) -> None:
    draw = np.random.default_rng(5)
    last = 10 + draw.geometric(rate, 1000)  # the epoch in which each run stops
    cfg = Config(trainer=TrainerConfig(max_epochs=200), early_stopping=EarlyStoppingConfig(patience=1))
    records = StackRecords([cfg] * 1000, [RunRecord.of(cfg) for _ in range(1000)])
    column, begun = [cfg.monitor], 0
    for epoch in range(14):
        training = np.flatnonzero(~records.ended)
        begun += len(training)
        values = np.where(epoch + 1 < last[training], -float(epoch), 0.0)[None]
        records.add(training.tolist(), epoch, column, values)
    left = np.minimum(last, 200).sum() - begun
    share = records.epochs.sum() / (records.epochs.sum() + left)
    assert records.trained_runs / 1000 == pytest.approx(share, rel=0.15)
