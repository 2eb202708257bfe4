"""Which epoch is the best, and when a run stops: against Lightning's own early stopping.

The rules are the same but for three things, which are ours on purpose: without a patience nothing stops a run,
not even a loss that is no longer finite; the best epoch is the best whatever min_delta says, which only decides
how long to wait; and values are compared in double precision, where Lightning compares what `self.log` keeps,
float32.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import EarlyStopping

from mlpexp.config.schema import EarlyStoppingConfig
from mlpexp.nn.early_stopping import Progress

NAN, INF = math.nan, math.inf


def progress(monitor="val/loss", patience=None, min_delta=0.0):
    return Progress.of(monitor, EarlyStoppingConfig(patience=patience, min_delta=min_delta))


def watch(watcher, values):
    """The epochs that were the best when they ended, and the epoch after which the run stopped."""
    best = []
    for epoch, value in enumerate(values):
        if watcher.update(epoch, value):
            best.append(epoch)
        if watcher.stopped:
            return best, epoch
    return best, None


def lightnings_stop(monitor, patience, min_delta, values):
    stopping = EarlyStopping(
        monitor, min_delta=min_delta, patience=patience, mode="min" if monitor == "val/loss" else "max"
    )
    for epoch, value in enumerate(values):
        stop, _ = stopping._evaluate_stopping_criteria(torch.tensor(value, dtype=torch.float64))
        if stop:
            return epoch
    return None


# coarse numbers, so that ties and steps of exactly min_delta happen
COARSE = st.integers(-6, 6).map(lambda quarter: quarter / 4)
VALUES = st.lists(COARSE | st.floats(-2, 2) | st.sampled_from([NAN, INF, -INF]), min_size=1, max_size=20)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    monitor=st.sampled_from(["val/loss", "val/acc"]),
    patience=st.integers(1, 5),
    min_delta=st.sampled_from([0.0, 0.25, 0.1]),
    values=VALUES,
)
def test_a_run_stops_in_the_epoch_in_which_lightning_stops_it(monitor, patience, min_delta, values):
    _, ours = watch(progress(monitor, patience, min_delta), values)
    assert ours == lightnings_stop(monitor, patience, min_delta, values)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(monitor=st.sampled_from(["val/loss", "val/acc"]), values=VALUES)
def test_the_best_epoch_is_the_first_of_the_best_finite_values(monitor, values):
    watcher = progress(monitor)
    watch(watcher, values)
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        assert watcher.best_epoch is None
        assert math.isnan(watcher.best_value)
    else:
        assert watcher.best_value == (min if monitor == "val/loss" else max)(finite)
        assert watcher.best_epoch == values.index(watcher.best_value)


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [
        ("val/loss", [3.0, 2.0, 2.0, 1.0, 1.0], [0, 1, 3]),
        ("val/acc", [0.3, 0.5, 0.5, 0.4, 0.6], [0, 1, 4]),
        ("val/loss", [NAN, 2.0, NAN, 1.0], [1, 3]),
        ("val/loss", [INF, -INF, 5.0], [2]),
        ("val/loss", [NAN, NAN], []),
    ],
)
def test_a_tie_goes_to_the_earlier_epoch_and_what_is_not_finite_is_never_better(monitor, values, best):
    assert watch(progress(monitor), values) == (best, None)


@pytest.mark.parametrize(
    ("patience", "values", "stopped"),
    [
        (1, [2.0, 1.0, 1.0, 0.5], 2),
        (2, [2.0, 2.0, 1.0, 1.0, 0.5, 0.5, 0.5], 6),
        (3, [1.0, 2.0, 2.0, 2.0, 0.0], 3),
        (3, [1.0, 2.0, 2.0, 0.5, 2.0, 2.0], None),
        (5, [1.0, NAN, 0.5], 1),
        (None, [1.0, NAN, INF, 2.0] + [2.0] * 50, None),
    ],
)
def test_a_run_stops_after_its_patience_or_at_once_when_it_is_no_longer_finite(patience, values, stopped):
    assert watch(progress(patience=patience), values)[1] == stopped


def test_min_delta_decides_how_long_to_wait_and_not_which_epoch_is_the_best():
    watcher = progress(patience=3, min_delta=0.5)
    best, stopped = watch(watcher, [2.0, 1.75, 1.6, 1.55])
    assert best == [0, 1, 2, 3]
    assert stopped == 3
    assert watcher.best_value == 1.55


def test_a_slow_descent_adds_up_to_min_delta():
    # measured from the value that last renewed the patience, not from the epoch before
    _, stopped = watch(progress(patience=2, min_delta=0.5), [2.0, 1.7, 1.4, 1.1, 0.8])
    assert stopped is None


def test_progress_continues_where_its_state_was_kept():
    values = [2.0, 1.5, NAN, 1.6, 1.4, 1.4, 1.4]
    whole, first = progress(), progress()
    watch(whole, values)
    watch(first, values[:3])
    second = Progress(**vars(first))
    for epoch, value in enumerate(values[3:], 3):
        second.update(epoch, value)
    assert vars(second) == vars(whole)
