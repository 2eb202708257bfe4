"""The progress bar of a sweep says what is done, how long the rest takes, what failed and what is best."""

import io
from dataclasses import dataclass
from typing import Any

import optuna
import pytest
from rich.console import Console
from test_screen import ended
from test_sweep_progress import _Clock

from mlpexp.search.search_time import SearchTime
from mlpexp.sweep.jobs import Outcome
from mlpexp.sweep.progress_bar import SweepBar


@dataclass
class _Progress:
    """What the bar and the search read of `SweepProgress`."""

    trained_runs: float = 600.0
    written_runs: int = 150
    elapsed_s: float = 10.0
    left_s: float | None = 130.0

    def seconds_left(self) -> float | None:
        return self.left_s


def bar_of(progress: Any, width: int = 120, known: tuple[Outcome, ...] = (), search_left: Any = None) -> SweepBar:
    return SweepBar(progress, 1500, Console(file=io.StringIO(), width=width), known, search_left)


def drawn(bar: SweepBar, width: int) -> str:
    """The line, without colours."""
    console = Console(file=(text := io.StringIO()), width=width)
    console.print(bar._bar.get_renderable())
    return text.getvalue().rstrip("\n")


@pytest.mark.parametrize(
    ("width", "said"),
    [
        (120, "training {} 40 %, 150 of 1,500 runs, 0:02:10 left, 2 failed, best val/loss 0.1200"),
        (80, "training {} 40 %, 150 of 1,500 runs, 0:02:10 left, 2 failed"),
        (60, "training {} 40 %, 150 of 1,500 runs, 0:02:10 left"),
        (40, "{} 40 %, 0:02:10 left"),
    ],
)
def test_the_bar_is_one_line_in_any_terminal_without_the_less_important_parts_in_a_narrow_one(
    width: int, said: str
) -> None:
    bar = bar_of(_Progress(), width, known=(ended(0.12, 0), Outcome(error=ValueError()), Outcome(error=ValueError())))
    line = drawn(bar, width)
    assert "\n" not in line
    assert len(line.rstrip()) <= width
    before, after = said.split("{}")
    assert line.startswith(before)
    assert line.rstrip().endswith(after)
    assert 4 <= len(line.rstrip()) - len(said) + 2 <= 16


def test_the_best_so_far_counts_runs_that_have_ended_before() -> None:
    bar = bar_of(_Progress(), known=(ended(0.12, 0),))
    bar.note(ended(0.5, 1))
    assert bar.status()[-1] == "best val/loss 0.1200"
    bar.note(ended(0.05, 2))
    assert bar.status()[-1] == "best val/loss 0.0500"


def test_no_time_is_left_at_the_end_and_none_is_announced_before_the_first_measurement() -> None:
    assert bar_of(_Progress(1500, 1500)).status() == ["100 %", "1,500 of 1,500 runs"]
    assert bar_of(_Progress(left_s=None)).status()[2] == "-:--:-- left"


@pytest.mark.parametrize("asked", [10, 30])
def test_the_bar_of_a_search_announces_the_time_of_all_its_trials(asked: int) -> None:
    study = optuna.create_study()
    study.add_trials([optuna.trial.create_trial(params={}, distributions={}, value=1.0)] * 5)  # known before
    clock = _Clock()
    search = SearchTime(study, 5 + 40, clock)
    trials = [study.ask() for _ in range(10)]
    progress: Any = _Progress(elapsed_s=0.0, left_s=None)
    assert search.seconds_left(progress) is None
    progress.elapsed_s, progress.left_s = 2.0, 8.0
    clock.now += 2
    assert search.seconds_left(progress) == pytest.approx(38.0)  # a fifth of a quarter is done
    bar = bar_of(progress, search_left=search.seconds_left)
    assert bar.status()[2] == "search 0:00:38 left"
    clock.now += 8
    for trial in trials:
        study.tell(trial, 1.0)
    trials = [study.ask() for _ in range(asked)]
    progress.elapsed_s, progress.left_s = 0.0, 5.0
    assert search.seconds_left(progress) == pytest.approx(30.0)
    for trial in trials[: asked // 2]:
        study.tell(trial, 1.0)  # pruned, e.g.
    clock.now += asked / 4
    assert search.seconds_left(progress) == pytest.approx((10 + asked / 4) * (30 - asked / 2) / (10 + asked / 2))


def test_the_finalists_of_a_search_have_a_time_of_their_own() -> None:
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(params={}, distributions={}, value=1.0))
    progress: Any = _Progress(left_s=7.0)
    assert SearchTime(study, 1).seconds_left(progress) == 7.0
