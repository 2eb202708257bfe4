"""Lives of searches, drawn at random: started, killed, signalled, the disk failing, files cut or damaged, extended.

Whatever came before, no finished run is lost or trained twice, and the next undisturbed start leaves the trials,
results and weights of a search of the same total to which nothing happened.
"""

import errno
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

from forks import Child, Ended, run
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from inject import Fault
from optuna.storages import JournalStorage
from optuna.study import load_study
from stateful import Picture, Rows, run_lives, table_rows
from sweeps import QUICK, Broken, finished, picture, untouched
from trial import Campaign, Case

from mlpexp.search.study_journal import Journal
from mlpexp.search.study_storage import STUDY
from mlpexp.store.file_names import LOG

BATCH, TOTALS = 3, (3, 6, 9)  # whole generations, so that an extended search is the search of the larger total
SPACES = {
    "tpe": ["optimizer.lr=tag(log,interval(0.3,0.9))", "model.width=range(8,13)"],
    "cmaes": ["optimizer.lr=tag(log,interval(0.3,0.9))", "model.width=int(interval(8,13))"],
    "grid": ["model.width=range(8,12)", "seed=range(1,3)", "optimizer.lr=0.3,0.6"],
    # with a pruner, a generation is cut by the total, so that these have one total only
    "median": ["optimizer.lr=tag(log,interval(0.01,0.9))", "model.width=range(8,11)"],
    "asha": ["optimizer.lr=tag(log,interval(0.01,0.9))", "model.width=range(8,11)", "seed=range(1,3)"],
    "hyperband": ["optimizer.lr=tag(log,interval(0.01,0.9))", "model.width=range(8,11)"],
    "wilcoxon": ["optimizer.lr=tag(log,interval(0.01,0.9))", "model.width=range(8,11)", "seed=range(5)"],
}
PRUNED = {
    "median": {"pruner": "median", "pruner_options": "{n_startup_trials:2,n_warmup_steps:0}", "batch_size": 4},
    "asha": {"pruner": "asha", "pruner_options": "{reduction_factor:2}", "batch_size": 4},
    "hyperband": {"pruner": "hyperband", "pruner_options": "{reduction_factor:2}", "batch_size": 4},
    "wilcoxon": {"pruner": "wilcoxon", "pruner_options": "{p_threshold:0.5}", "batch_size": 4},
}
FILES = ("search.jsonl", "optuna.log", "optimization_results.yaml", "results.csv")
WARNED = ("search.jsonl is damaged", "optuna.log is ", "is damaged")  # what a start says of files that were damaged
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
Expected = Callable[[str, int], tuple[Picture, Rows, list[float | None]]]  # of a space and a total


def live(top: Path, number: int, examples: int) -> int:
    """Draw so many lives; returns the number of commands in them."""
    expected = cache(partial(undisturbed, top))
    return run_lives(lambda count: SearchLife(top, expected, count), number, examples, steps=6)


class SearchLife(RuleBasedStateMachine):
    """One directory of a search."""

    def __init__(self, top: Path, expected: Expected, count: Callable[[], None]) -> None:
        super().__init__()
        self.place, self.count, self.expected = Path(tempfile.mkdtemp(dir=top)), count, expected
        self.sampler, self.total, self.damaged = "tpe", 0, False

    @initialize(sampler=st.sampled_from(list(SPACES)))
    def begin(self, sampler: str) -> None:
        self.sampler, self.total = sampler, 0

    @rule(step=st.integers(0, 2))
    def start(self, step: int) -> None:
        ended = self._command(step)
        said = [line for line in ended.lines if not (self.damaged and any(word in line for word in WARNED))]
        if ended.code or said:
            raise Broken.by(ended)
        self.damaged = False
        self._compare()

    @rule(step=st.integers(0, 2), number=st.integers(0, 120), torn=st.booleans())
    def start_and_be_killed(self, step: int, number: int, torn: bool) -> None:
        ended = self._command(step, Fault(number, torn=torn))
        if ended.code != (-9 if ended.hits else 0):
            raise Broken.by(ended)

    @rule(
        step=st.integers(0, 2),
        number=st.integers(0, 120),
        error=st.sampled_from([errno.ENOSPC, errno.EIO]),
        lasting=st.booleans(),
    )
    def start_while_the_disk_fails(self, step: int, number: int, error: int, lasting: bool) -> None:
        ended = self._command(step, Fault(number, error=error, torn=True, lasting=lasting))
        if ended.hits and (ended.code != 1 or os.strerror(error) not in ended.err or "Traceback" in ended.err):
            raise Broken.by(ended, f"{ended.hit}; ")

    @rule(step=st.integers(0, 2), number=st.sampled_from(list(CODES)), moment=st.floats(0.05, 2))
    def start_and_be_signalled(self, step: int, number: int, moment: float) -> None:
        def signalled(words: list[str]) -> Ended:
            child = Child(self.place, words)
            while not child.is_armed and not child.wait_until(0):
                time.sleep(0.002)
            if not child.wait_until(moment):
                child.kill(number)
            return child.ended()

        ended = self._command(step, by=signalled)
        if ended.code not in (0, CODES[number]):
            raise Broken.by(ended)

    @rule(which=st.integers(0, 10**6), where=st.floats(0, 1), how=st.sampled_from(["cut", "cut", "flip", "lose"]))
    def damage_a_file(self, which: int, where: float, how: str) -> None:
        if not (files := self._files()):  # no precondition: what is there depends on when a signal arrived
            return
        path = files[which % len(files)]
        content = bytearray(path.read_bytes())
        match how:
            case "flip" if content:
                bit = int(where * (8 * len(content) - 1))
                content[bit // 8] ^= 1 << bit % 8
            case "cut":
                del content[int(where * len(content)) :]
        path.unlink() if how == "lose" else path.write_bytes(content)
        self.damaged = True

    def teardown(self) -> None:
        try:
            self.start(0)
        finally:
            shutil.rmtree(self.place)

    def _command(self, step: int, fault: Fault | None = None, by: Callable[[list[str]], Ended] | None = None) -> Ended:
        """Start the search, perhaps with a larger total than before."""
        self.count()
        totals = _totals(self.sampler)
        self.total = max(self.total, totals[step % len(totals)])
        before = finished(self.place)
        words = words_of(self.sampler, self.total)
        ended = by(words) if by else run(self.place, words, fault)
        untouched(self.place, before)
        return ended

    def _compare(self) -> None:
        """The runs, the table and the study are those of an undisturbed search."""
        expected, rows, values = self.expected(self.sampler, self.total)
        found = picture(self.place, list(rows))
        for key, value in expected.items():
            if found.get(key) != value:
                raise Broken(f"{key} is {str(found.get(key))[:200]} in place of {value[:200]}")
        if table_rows(self.place / "multirun/s") != rows:
            raise Broken(f"the table has {list(table_rows(self.place / 'multirun/s'))} in place of {list(rows)}")
        if (told := told_values(self.place)) != values:
            raise Broken(f"the study has the values {told} in place of {values}")

    def _files(self) -> list[Path]:
        sweep = self.place / "multirun/s"
        runs = (path for path in sweep.glob("*=*/*") if path.is_file() and path.name != LOG)
        return sorted([*[sweep / name for name in FILES if (sweep / name).exists()], *runs])


def lives(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    for examples in campaign.series(1, 50):

        def case(place: Path, examples: int = examples) -> str:
            return f"series of {examples} lives, {live(place, campaign.random.randrange(2**31), examples)} commands"

        yield f"{examples} of them", case


def _totals(space: str) -> tuple[int, ...]:
    return TOTALS[-1:] if space in PRUNED else TOTALS


def words_of(space: str, total: int) -> list[str]:
    own = PRUNED.get(space, {"sampler": space, "batch_size": BATCH})
    return [
        "-m",
        "hydra/sweeper=optuna",
        *SPACES[space],
        *(f"hydra.sweeper.{k}={v}" for k, v in {"n_trials": total, **own}.items()),
        *QUICK,
        *(["trainer.max_epochs=5"] if space in PRUNED else []),
    ]


def told_values(place: Path) -> list[float | None]:
    """The value of each trial, by its number; of one that was told twice, the later one."""
    study = load_study(study_name=STUDY, storage=JournalStorage(Journal(place / "multirun/s/optuna.log")))
    values = {trial.user_attrs["trial"]: trial.value for trial in study.trials}
    return [values[number] for number in range(len(values))]


def undisturbed(top: Path, sampler: str, total: int) -> tuple[Picture, Rows, list[float | None]]:
    """What a search leaves to which nothing happened."""
    place = Path(tempfile.mkdtemp(dir=top))
    ended = run(place, words_of(sampler, total))
    if ended.code or ended.err:
        raise Broken.by(ended, "the undisturbed search ")
    rows = table_rows(place / "multirun/s")
    expected = picture(place, list(rows)), rows, told_values(place)
    shutil.rmtree(place)
    return expected
