"""The progress of a sweep counts runs, and announces the time that is left from what has been measured."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from mlpexp.config.schema import Config
from mlpexp.sweep.sweep_progress import (
    FAST,
    FILES_EPOCH_S,
    FILES_S,
    OF_HYDRA_FILES,
    STACK_EPOCH_S,
    STACK_S,
    WHOLE_SWEEP,
    SweepProgress,
)

EPOCHS = Config().trainer.max_epochs
FILE_S = FILES_S["run"] + FILES_EPOCH_S["run"] * EPOCHS
POLL_S = 0.5  # of the processes of a sweep


@dataclass
class _Job:
    config: Config = field(default_factory=Config)


@dataclass
class _Unit:
    """What `SweepProgress` reads of a unit."""

    origin: int
    cost: float
    size: int
    alone: bool = False
    trained_share: float = 0.0
    config: Config = field(default_factory=Config)

    @property
    def jobs(self) -> list[_Job]:
        return [_Job(self.config)] * self.size

    @property
    def training_s(self) -> float:
        """Seconds that its training should take after its start, with the default configuration."""
        return self.cost + STACK_EPOCH_S * EPOCHS * (1 - self.trained_share)


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class _Sweep:
    """A sweep in this process, by a clock that is set; measurements have no weight of a prior."""

    units: list[_Unit]
    workers: int = 1
    hydra_files_s: float | None = None

    def __post_init__(self) -> None:
        self.clock = _Clock()
        self.progress = SweepProgress(self.units, self.workers, self.hydra_files_s, self.clock)  # type: ignore[arg-type]

    def train(self, unit: _Unit, pace: float, share: float = 1.0, steps: int = 2) -> None:
        for step in range(steps):
            self.clock.now += pace * (STACK_S * (step == 0) + share * unit.training_s / steps)
            before = unit.trained_share * unit.size
            self.progress.note(unit.origin, before + (unit.size - before) * share * (step + 1) / steps)

    def write(self, unit: _Unit, seconds: float, runs: int | None = None) -> None:
        for _ in range(unit.size if runs is None else runs):
            self.clock.now += seconds
            self.progress.note_written(unit.origin)

    def left(self) -> float | None:
        return self.progress.seconds_left()


@pytest.fixture
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpexp.sweep.sweep_progress.PRIOR_S", 1e-9)


pytestmark = pytest.mark.usefixtures("_exact")


@pytest.mark.parametrize("trained_share", [0.0, 0.5])
def test_the_time_left_follows_the_cost_of_the_units_and_not_the_number_of_runs(trained_share: float) -> None:
    sweep = _Sweep([_Unit(0, 1.0, 10, trained_share=trained_share), _Unit(10, 9.0, 10)])  # narrow ones, then wide ones
    narrow, wide = sweep.units
    assert sweep.left() is None
    sweep.train(narrow, pace=2)
    assert sweep.progress.trained_runs == 10
    rest = 2 * (wide.training_s + STACK_S)
    assert sweep.left() == pytest.approx(rest + 20 * 2 * FILE_S)  # files are expected at the pace of training
    sweep.clock.now += 0.01
    assert sweep.left() == pytest.approx(rest + 20 * 2 * FILE_S - 0.01)
    sweep.write(narrow, 0.5)
    assert sweep.progress.written_runs == 10
    assert sweep.left() == pytest.approx(rest + 10 * 0.5)  # until their own pace is measured
    sweep.train(wide, pace=2)
    sweep.write(wide, 0.5)
    assert sweep.left() == 0


def test_the_first_measurement_has_imports_in_it_and_is_replaced_by_the_next_one() -> None:
    sweep = _Sweep([_Unit(0, 1.0, 10)])
    [unit] = sweep.units
    sweep.clock.now += 30
    sweep.train(unit, pace=1, share=0.1, steps=1)
    assert (sweep.left() or 0) > 100
    sweep.clock.now += unit.training_s * 0.4
    sweep.progress.note(0, 5)
    assert sweep.left() == pytest.approx(unit.training_s / 2 + 10 * FILE_S)


@pytest.mark.parametrize(
    ("hydra_files_s", "pace"), [(None, FAST), (1e-4, FAST), (20e-3, OF_HYDRA_FILES * 20e-3 / FILES_S["run"])]
)
def test_before_a_run_is_written_a_gpu_makes_no_files_faster_and_a_slow_disk_makes_them_slower(
    hydra_files_s: float | None, pace: float
) -> None:
    sweep = _Sweep([_Unit(0, 1.0, 10)], hydra_files_s=hydra_files_s)
    sweep.train(sweep.units[0], pace=0.01)
    assert sweep.left() == pytest.approx(10 * pace * FILE_S)


def test_a_worker_is_measured_by_its_own_clock_and_what_it_writes_counts_before_its_outcomes_come() -> None:
    sweep = _Sweep([_Unit(0, 1.0, 10), _Unit(10, 1.0, 10)])
    first, second = sweep.units
    sweep.clock.now += 0.3  # reports are seen late
    sweep.progress.note(0, 0.0, 0, 0.2)
    sweep.progress.note(0, 1.0, 0, 3.0)
    sweep.clock.now += 7.7
    sweep.progress.note(0, 10.0, 0, 3.0 + 0.9 * first.training_s * 4)
    assert sweep.left() == pytest.approx(4 * (second.training_s + STACK_S) + 20 * 4 * FILE_S)
    sweep.progress.note(0, 10.0, 5, 4.0 + 0.9 * first.training_s * 4)
    sweep.progress.note(0, 10.0, 10, 8.0 + 0.9 * first.training_s * 4)
    assert sweep.progress.written_runs == 10
    assert sweep.left() == pytest.approx(4 * (second.training_s + STACK_S) + 10 * 4 / 5)
    sweep.clock.now += 3
    sweep.write(first, 0.0)  # the outcomes
    assert sweep.progress.written_runs == 10
    assert sweep.left() == pytest.approx(4 * (second.training_s + STACK_S) + 10 * 4 / 5 - 3)


def test_the_last_unit_of_a_worker_is_not_shared_with_the_others() -> None:
    sweep = _Sweep([_Unit(0, 1.0, 10), _Unit(10, 1.0, 10), _Unit(20, 1.0, 10)], workers=2)
    seconds = sweep.units[0].training_s + STACK_S
    for share in (0.5, 1.0):
        for origin in (0, 10):
            sweep.progress.note(origin, share * 10, 0, share * seconds)
    file_s = FILE_S * sweep.progress._pace("files")
    assert sweep.left() == pytest.approx(sweep.progress._pace("training") * seconds + 20 * file_s)


def test_a_unit_that_another_worker_tries_again_is_measured_from_then_on() -> None:
    sweep = _Sweep([_Unit(0, 1.0, 10)])
    for trained, seconds in ((2.0, 1.0), (6.0, 5.0), (0.0, 0.0), (4.0, 4.0), (8.0, 8.0)):
        sweep.progress.note(0, trained, 0, seconds)
    assert sweep.progress.trained_runs == 8.0
    files_s = 10 * FILE_S * sweep.progress._pace("files")
    assert sweep.left() == pytest.approx(4.0 + files_s)  # two runs at two seconds each, as the first ones came again


def test_progress_of_a_backend_that_trains_all_units_side_by_side_counts_as_one_unit() -> None:
    sweep = _Sweep([_Unit(WHOLE_SWEEP, 10.0, 100)])
    for runs in (10.0, 20.0, 30.0):
        sweep.clock.now += 2.0
        sweep.progress.note(WHOLE_SWEEP, runs)
        for run in range(5):  # those that leave
            sweep.progress.note_written(int(runs) + run)
    assert (sweep.progress.trained_runs, sweep.progress.written_runs) == (30.0, 15)
    assert sweep.left() == pytest.approx(14.0, rel=0.01)


def test_runs_alone_have_a_pace_of_their_own() -> None:
    sweep = _Sweep([_Unit(0, 1.0, 10), *(_Unit(10 + run, 0.0, 1, alone=True) for run in range(4))])
    stack, *alone = sweep.units
    sweep.train(stack, pace=1)
    sweep.write(stack, FILE_S)
    for run, seconds in zip(alone, (9.0, 3.0, 3.0), strict=False):  # the first one imports
        sweep.write(run, seconds)
    assert sweep.left() == pytest.approx(3.0)


@dataclass(frozen=True)
class _Recorded:
    """A stack as it was recorded, in seconds of a processor: until its first epoch ends, each other one, the test, a
    run's files."""

    size: int
    epochs: int
    cost: float
    first_s: float
    epoch_s: float
    test_s: float
    file_s: float
    record: str = "run"
    engine: str = "compiled"

    @property
    def config(self) -> Config:
        cfg = Config()
        return replace(
            cfg,
            record=self.record,
            stack=replace(cfg.stack, engine=self.engine),
            trainer=replace(cfg.trainer, max_epochs=self.epochs),
        )

    def reports(self, speed: float) -> Iterator[tuple[float, float, int]]:
        """Seconds since its beginning, runs trained, runs written."""
        now = self.first_s
        for epoch in range(self.epochs):
            yield speed * now, self.size * (epoch + 1) / self.epochs, 0
            now += self.epoch_s
        now += self.test_s - self.epoch_s
        for run in range(self.size):
            now += self.file_s
            yield speed * now, self.size, run + 1


RECORDED = {
    "seeds": _Recorded(400, 10, 4.39, 0.27, 0.18, 0.05, 3.1e-3),
    "one epoch": _Recorded(300, 1, 0.33, 0.26, 0.2, 0.04, 3.4e-3),
    "100 epochs": _Recorded(100, 100, 11.4, 0.11, 0.047, 0.03, 6.7e-3),
    "500 epochs": _Recorded(60, 500, 35.3, 0.09, 0.029, 0.03, 18.9e-3),
    "table": _Recorded(500, 10, 5.47, 0.34, 0.19, 0.04, 0.17e-3, record="table"),
    "table, 300 epochs": _Recorded(60, 300, 21.2, 0.06, 0.028, 0.01, 1.9e-3, record="table"),
    "wide networks": _Recorded(40, 10, 2.82, 0.13, 0.1, 0.02, 3.2e-3),
    "torch": _Recorded(100, 10, 1.14, 0.38, 0.19, 0.04, 4.3e-3, engine="torch"),
}


def announced(stacks: Sequence[_Recorded], workers: int, speed: float) -> tuple[list[float | None], float]:
    """What is announced at a tenth, a quarter and a half of a sweep divided by what is left then, and the whole time.

    Args:
        workers: processes, whose reports are polled; 1: this process.
        speed: of the machine, as a factor of all times.
    """
    starts = [(0.0, worker) for worker in range(workers)]
    units, events = [], []
    for number, stack in enumerate(stacks):
        origin = 1000 * number
        units.append(_Unit(origin, stack.cost, stack.size, config=stack.config))
        begin, worker = heapq.heappop(starts)
        reported = -1.0
        for seconds, trained, written in stack.reports(speed):
            is_last = written == stack.size
            if workers == 1:
                events.append((begin + seconds, origin, trained, written, None))
            elif seconds >= reported + POLL_S or is_last:
                seen = begin + seconds if is_last else POLL_S * -(-(begin + seconds) // POLL_S)
                reported = seconds
                events.append((seen, origin, trained, written, seconds))
        heapq.heappush(starts, (begin + seconds, worker))
    events.sort(key=lambda event: event[0])
    clock, wall_s, ratios = _Clock(), events[-1][0], []
    clock.now = 0.0
    progress = SweepProgress(units, workers, None, clock)  # type: ignore[arg-type]
    for share in (0.1, 0.25, 0.5):
        while events and events[0][0] <= share * wall_s:
            clock.now, origin, trained, written, worker_s = events.pop(0)
            progress.note(origin, trained, written, worker_s)
        clock.now = share * wall_s
        left = progress.seconds_left()
        ratios.append(None if left is None else left / (wall_s - clock.now))
    return ratios, wall_s


@pytest.mark.parametrize("speed", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("kind", [*RECORDED, "mixed"])
def test_what_is_announced_from_a_tenth_on_is_within_a_quarter_of_what_is_left(
    kind: str, workers: int, speed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the prior has its weight
    some = [RECORDED[kind]] if kind in RECORDED else sorted(RECORDED.values(), key=lambda stack: -stack.cost)
    for count in range(1, 200):  # as many as make a sweep of ten seconds
        ratios, wall_s = announced([stack for stack in some for _ in range(count)], workers, speed)
        if wall_s >= 10 and count * len(some) % workers == 0:
            break
    assert wall_s >= 10
    assert all(ratio is not None and 0.8 <= ratio <= 1.25 for ratio in ratios), (wall_s, ratios)
