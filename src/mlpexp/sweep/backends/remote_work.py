"""A unit of work in a process that did not compose the sweep."""

import contextlib
import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from hydra.core.utils import setup_globals
from lightning.pytorch import Callback, LightningModule, Trainer

from mlpexp.data import data_digest
from mlpexp.runtime.errors import Interrupted
from mlpexp.store.file_names import BEFORE_TRAINING
from mlpexp.store.identity import identity
from mlpexp.store.run_state import State, inspect
from mlpexp.store.worker_session import Gone, Session
from mlpexp.sweep.run_jobs import Outcome
from mlpexp.sweep.work_unit import Unit, work
from mlpexp.training import single_run

Ended = list[tuple[int, Outcome]]
WATCH_S = 0.5
_one_at_a_time = threading.Lock()  # torch's threads, logging and the working directory belong to the whole process


class Lost(Exception):
    """A worker could not finish its unit: it was killed, or stopped from outside."""


@dataclass(frozen=True, kw_only=True)
class Away:
    """What a worker has to know beside its unit.

    Attributes:
        home: the working directory of the sweep, which relative paths start from.
        prepare: called before any unit.
        is_ours: the process works for this sweep only, and may be ended when that has gone.
    """

    session: Session
    home: str
    prepare: Callable[[], None] | None
    is_ours: bool

    def __call__(self, unit: Unit) -> Ended:
        """Work on a unit, or on what is left of it: runs that another worker has finished are not trained again.

        Raises:
            Lost: stopped from outside, or the sweep has gone.
        """
        with _one_at_a_time, contextlib.ExitStack() as surroundings:
            try:
                surroundings.enter_context(self.session.writing(unit.origin))
                if Path(self.home).is_dir():
                    surroundings.enter_context(contextlib.chdir(self.home))
                surroundings.enter_context(single_run.Quiet())
                if self.prepare is not None:
                    self.prepare()
                setup_globals()  # Hydra's resolvers
                if self.is_ours:
                    surroundings.enter_context(_ending_with(self.session))
                ended, left = _standing(unit)
                if left.jobs:
                    for one in work(left, [_Watch(self.session)]):
                        ended.append(one)
                        self.session.check()
            except (Gone, Interrupted, SystemExit, KeyboardInterrupt) as stop:
                raise Lost(f"{type(stop).__name__}: {stop}") from None
        return [(place, _portable(outcome)) for place, outcome in ended]


def begin(conductor: int) -> None:
    """A worker process starts: Ctrl-C is its conductor's affair, and it does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)  # of a copied process no other thread is left; a unit sets what its runs say

    def watch() -> None:
        while os.getppid() == conductor:
            time.sleep(WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch the conductor").start()


@contextlib.contextmanager
def _ending_with(session: Session) -> Iterator[None]:
    """While it lasts, the process ends as soon as the session has: files are written whole or not at all."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_S):
            try:
                session.check()
            except Gone:
                os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch the sweep").start()
    try:
        yield
    finally:
        over.set()


def _standing(unit: Unit) -> tuple[Ended, Unit]:
    """What an earlier worker has finished of the unit, and what is left, with the rest of its traces removed."""
    done: Ended = []
    left = []
    for place, job in zip(unit.places, unit.jobs, strict=True):
        found = inspect(job.directory, identity(job.config, data_digest.of(job.config.data)))
        if found.state is State.DONE:
            done.append((place, Outcome(result=found.result)))
            continue
        if found.state is not State.NEW:
            for path in job.directory.iterdir():
                if path.name not in BEFORE_TRAINING:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        left.append((place, job))
    places, jobs = tuple(place for place, _ in left), tuple(job for _, job in left)
    return done, replace(unit, places=places, jobs=jobs)


def _portable(outcome: Outcome) -> Outcome:
    """With an error that survives the way home."""
    error = outcome.error
    if error is None:
        return outcome
    try:
        copy = pickle.loads(pickle.dumps(error))
        travels = type(copy) is type(error) and str(copy) == str(error)
    except Exception:
        travels = False
    return outcome if travels else replace(outcome, error=RuntimeError(f"{type(error).__name__}: {error}"))


class _Watch(Callback):
    """Stops a stack whose sweep has gone, before it writes."""

    def __init__(self, session: Session) -> None:
        self._session, self._looked_at = session, time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if time.monotonic() - self._looked_at > WATCH_S:
            self._session.check()
            self._looked_at = time.monotonic()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._session.check()
