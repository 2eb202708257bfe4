"""Fits of estimators: each trained by itself, or first recorded and then trained together as stacks.

A search fits every candidate twice. The first time the fits are recorded, with the data that preprocessing has made for
them; then all are trained as stacks; the second time each fit takes its network, which is found by content: settings,
seed and data. A fit for which none is found is trained by itself, with the same bits.

Letters: R runs.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlpexp.api.estimators import worker_processes
from mlpexp.api.estimators.given_arrays import GivenArrays
from mlpexp.config.schema import Config
from mlpexp.engine.compiled.compile_cache import load_kernels
from mlpexp.models.training_state import RunRecord, TrainingState
from mlpexp.nn.network import NetworkSpec
from mlpexp.runtime import signals
from mlpexp.runtime.errors import Interrupted, Stopped, UserError, first_line
from mlpexp.training.engine_choice import with_engine
from mlpexp.training.planner import MIN_COST, Stack, plan
from mlpexp.training.train_stack import train_stack
from mlpexp.training.trainer_setup import quiet

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class Fit:
    """One network that is to be trained.

    Attributes:
        state: from which the training goes on; None: from initial weights.
        seeded: the seed was given, and not drawn anew for this fit.
        settings: a text that is equal where the settings are.
        keeps_state: the optimizer's state is wanted, too.
        takes_best: the weights are those of the best epoch, not of the last one.
    """

    cfg: Config
    data: GivenArrays
    settings: str
    seeded: bool = True
    state: TrainingState | None = None
    keeps_state: bool = False
    takes_best: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """Hashable; fits of equal keys train the same network, or one as good where the seed is drawn."""
        return *self.data.content_key, self.settings, self.cfg.seed if self.seeded else None


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedNetwork:
    """The result of a fit.

    Attributes:
        weights: by full name, running statistics too, those of the best epoch where a validation part chose it.
        optimizer_state: by torch's name; empty unless requested.
        num_steps: behind that state.
        seconds: its share of the training time.
        is_unfinished: the last epoch came before the end that early stopping would have chosen.
    """

    network: NetworkSpec
    weights: dict[str, NDArray[np.float32]]
    record: RunRecord
    optimizer_state: dict[str, list[Tensor]]
    num_steps: int
    seconds: float
    is_unfinished: bool


_training = threading.RLock()  # Lightning, warnings and torch's number of threads belong to the whole process
_recorder: ContextVar["StackedFits | None"] = ContextVar("recorder", default=None)
_available: list["StackedFits"] = []


def train_now_or_later(fit: Fit) -> TrainedNetwork | None:
    """The trained network; None where the fit has been recorded, to be trained with others."""
    recorder = _recorder.get()
    if recorder is not None:
        recorder.record(fit)
        return None
    searches = list(_available)
    for stacked in searches:
        if (network := stacked.take(fit)) is not None:
            return network
    for stacked in searches[-1:]:
        stacked.num_others += 1
    return train([fit])[0]


def record_call(estimator: object, *arguments: Any) -> None:
    """Record how an estimator's `fit` was called, in the search that records fits."""
    if (recorder := _recorder.get()) is not None:
        recorder.call = estimator, arguments


class StackedFits:
    """The fits of one search.

    Args:
        jobs: see `train`.

    Attributes:
        fits: that have been recorded.
        trained: their networks, in the order in which they were recorded.
        num_others: networks that were trained by themselves while those of the search were available.
        call: the latest estimator whose `fit` was called while recording, and its arguments.
    """

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs
        self.fits: list[Fit] = []
        self.trained: list[TrainedNetwork] = []
        self.num_others = 0
        self.call: tuple[object, tuple[Any, ...]] = None, ()
        self._data: dict[object, GivenArrays] = {}
        self._left: dict[object, list[TrainedNetwork]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """While it lasts, fits of this thread are recorded and not trained."""
        token = _recorder.set(self)
        try:
            yield
        finally:
            _recorder.reset(token)

    def record(self, fit: Fit) -> None:
        """Add a fit; equal data are kept once."""
        kept = self._data.setdefault(fit.data.table.digest, fit.data)
        shared = self._data.setdefault(fit.data.key, replace(fit.data, table=kept.table))
        self.fits.append(replace(fit, data=shared))

    @contextmanager
    def available(self) -> Iterator[None]:
        """Train what has been recorded; while it lasts, fits of all threads take their networks."""
        self.trained = train(self.fits, self.jobs)
        self._left = defaultdict(list)
        for fit, network in zip(self.fits, self.trained, strict=True):
            self._left[fit.key].append(network)
        self.fits, self._data = [], {}
        _available.append(self)
        try:
            with _kept_threads():
                torch.set_num_threads(1)  # the search scores candidates by threads of its own
                yield
        finally:
            _available.remove(self)

    def take(self, fit: Fit) -> TrainedNetwork | None:
        """The network of an equal fit, once for each that was recorded."""
        if fit.state is not None or fit.keeps_state:
            return None
        with self._lock:
            networks = self._left.get(fit.key)
            return networks.pop() if networks else None


def train(fits: Sequence[Fit], jobs: int = 1) -> list[TrainedNetwork]:
    """Train all, as few stacks as memory and cache allow.

    Args:
        jobs: stacks that are trained at once, by processes; or threads of the compiled engine, where there is one
            stack, little to train, or processes cannot be copied. No network depends on it.

    Raises:
        ValueError: a network needs more memory than there is.
        KeyboardInterrupt: stopped.
    """
    networks: dict[int, TrainedNetwork] = {}
    with _training, _kept_threads():
        try:
            with signals.interruptible(), quiet():
                for runs, trained in _trained(fits, jobs):
                    networks.update(zip(runs, trained, strict=True))
        except Interrupted as interrupted:
            raise Stopped(str(interrupted)) from None
        except UserError as error:
            raise ValueError(first_line(error)) from None
    return [networks[i] for i in range(len(fits))]


def _trained(fits: Sequence[Fit], jobs: int) -> Iterator[tuple[list[int], list[TrainedNetwork]]]:
    """The networks of each stack, with their places among the fits."""
    configs = [with_engine(fit.cfg) for fit in fits]
    workers, stacks = _division(fits, configs, jobs)
    if any(cfg.stack.engine == "compiled" for cfg in configs):
        if workers > 1:  # before they start, or each of them would
            load_kernels(configs, announce=log.info)
        else:
            configs = [_with_threads(cfg, jobs) for cfg in configs]

    def train_one(runs: list[int]) -> list[TrainedNetwork]:
        return list(_stack([fits[i] for i in runs], [configs[i] for i in runs]))

    if workers > 1:
        yield from worker_processes.trained(train_one, stacks, workers)
    else:
        for stack in stacks:
            yield stack.runs, train_one(stack.runs)


def _division(fits: Sequence[Fit], configs: Sequence[Config], jobs: int) -> tuple[int, list[Stack]]:
    """The stacks, and how many processes train them: 1 is this one."""
    if len(fits) < 2:
        return 1, [Stack(runs=[0], cost=0.0, memory_bytes=0)][: len(fits)]
    data = [fit.data for fit in fits]
    division = plan(configs, data)
    if jobs > 1 and division.cost > MIN_COST and worker_processes.are_possible():
        return jobs, plan(configs, data, workers=jobs).stacks
    return 1, division.stacks


@contextmanager
def _kept_threads() -> Iterator[None]:
    """Afterwards torch has as many threads as before."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _with_threads(cfg: Config, threads: int) -> Config:
    return replace(cfg, stack=replace(cfg.stack, threads=threads)) if cfg.stack.engine == "compiled" else cfg


def _stack(fits: Sequence[Fit], configs: Sequence[Config]) -> Iterator[TrainedNetwork]:
    started = time.perf_counter()
    states = [fit.state for fit in fits if fit.state is not None]
    module = train_stack(configs, [fit.data for fit in fits], states=states)
    seconds = (time.perf_counter() - started) / len(fits)
    for run, fit in enumerate(fits):
        record = module.records[run]
        snapshot = module.best if fit.takes_best and record.progress.best_epoch is not None else module.last
        yield TrainedNetwork(
            network=module.networks[run],
            weights={name: values[run].numpy().copy() for name, values in snapshot.parameters.items()},
            record=record,
            optimizer_state=module.last.row(run).state if fit.keeps_state else {},
            num_steps=_steps_before(fit) + fit.cfg.data.steps(len(fit.data.split.train)) if fit.keeps_state else 0,
            seconds=seconds,
            is_unfinished=fit.cfg.early_stopping.patience is not None and not record.progress.stopped,
        )


def _steps_before(fit: Fit) -> int:
    return 0 if fit.state is None or fit.state.num_steps is None else fit.state.num_steps
