"""The jobs of a sweep: its checked runs, and their outcomes.

Imports no torch, so that a refused or finished sweep ends quickly.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, configure_log, env_override
from omegaconf import DictConfig

from mlpexp import data
from mlpexp.config.compose import hydra_config
from mlpexp.config.composed_run import HydraRun
from mlpexp.config.hparams import chosen, swept, with_values_of
from mlpexp.config.overrides import RunSpec, swept_keys
from mlpexp.config.schema import Config
from mlpexp.runtime.errors import is_storage
from mlpexp.store import atomic_files, failure_record, run_directory
from mlpexp.store.file_names import HYDRA, LOG
from mlpexp.store.results_table import Row
from mlpexp.store.run_directory import FINAL, Result
from mlpexp.store.run_state import State, SurveyedRun
from mlpexp.store.run_weights import Weights


@dataclass(slots=True, kw_only=True)
class Job(HydraRun):
    """One run of a sweep, checked.

    It has its place once it has been surveyed; while it trains, its directory exists with Hydra's files, unless
    `record=table`, or `opens_late` says that they can be written when it has trained.
    """

    config: Config
    place: str
    """the directory where it is or will be, which may be another one than `output_dir`"""
    data_digest: str = ""
    """digest of the data at the start of the sweep"""
    done: "Result | None" = None
    """its result if an earlier start has finished it; it is not trained again"""
    earlier: "SurveyedRun | None" = None
    """the run as it ended after fewer epochs, from which it is trained further"""
    saved_as: str = ""
    """the identity by which the survey has found its state, if it is saved"""
    swept: tuple[str, ...] = ()
    """the keys that the sweep varies; empty if its sweeper does not say"""
    hydra: Callable[[RunSpec], DictConfig]
    """makes the whole configuration with Hydra's node: 150 KiB, so it is not kept"""

    @property
    def number(self) -> int:
        return self.spec.number

    @property
    def directory(self) -> Path:
        return Path(self.place)

    @property
    def log(self) -> Path | None:
        """Its log file; None if its logging is switched off."""
        return None if self.log_name is None else self.directory / self.log_name

    def take_survey(self, surveyed: SurveyedRun, swept: tuple[str, ...] = ()) -> None:
        """Take over the place and the state that a survey has found."""
        self.place, self.done, self.swept = surveyed.place, surveyed.result, swept
        self.earlier = surveyed.earlier if surveyed.result is None else None
        self.saved_as = surveyed.saved_as
        self.data_digest = data.digest(self.config.data)

    def opens_late(self, surveyed: SurveyedRun) -> bool:
        """Whether its directory is made after its training only: it continues a shorter run, which stays until then.

        Args:
            surveyed: the run in the survey.
        """
        return (
            surveyed.state is State.SHORTER
            and self.config.record == "run"
            and self.config.tracking.weights is None  # written while it trains
            and self.output_subdir == HYDRA
            and self.log_name in (None, LOG)
            and not os.path.lexists(self.place)
        )

    @property
    def epochs_before(self) -> int:
        """The number of epochs of the shorter run from which it continues; 0 without one."""
        if self.earlier is None or self.earlier.result is None or not self.earlier.has_state:
            return 0
        return self.earlier.result.epochs

    @property
    def hparams(self) -> dict[str, bool | int | float | str]:
        """The run's row of TensorBoard's HParams page."""
        return swept(self.config, self.swept, self.overrides) if self.swept else chosen(self.config)

    def packed(self, *, alone: bool) -> "Job":
        """The same job as plain data, for another process; a stack does not need the whole configuration."""
        files = None if self.make_files is None else partial(_packed_files, self.make_files(self.spec, self.output_dir))
        return replace(self, hydra=partial(_packed_config, self.hydra(self.spec) if alone else None), make_files=files)

    def open_directory(self) -> None:
        """Make its directory with Hydra's files, unless that is done."""
        if self.make_files is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.output_subdir is not None:
            directory = self.directory / self.output_subdir
            directory.mkdir(parents=True, exist_ok=True)
            atomic_files.clean(directory)
            atomic_files.write_all(directory, self.make_files(self.spec, self.output_dir))
        if self.log is not None:
            self.log.touch()
        self.make_files = None

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        """While the block runs, provide what Hydra provides to a job: `HydraConfig`, environment variables, log."""
        cfg = self.hydra(self.spec)
        with hydra_config(cfg), env_override(self.env_set):
            configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)
            try:
                yield
            finally:
                configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)

    def append_to_log(self, text: str) -> None:
        if self.log is not None:
            atomic_files.append(self.log, text)


def _packed_config(cfg: DictConfig | None, _: RunSpec) -> DictConfig:
    assert cfg is not None, "a run that trains in a stack was packed without its whole configuration"
    return cfg


def _packed_files(files: dict[str, str], spec: RunSpec, output_dir: str) -> dict[str, str]:
    return files


@dataclass(slots=True, kw_only=True)
class Outcome:
    """The outcome of a run: its result, or the error that it raised, or both."""

    result: Result | None = None
    error: Exception | None = None
    files: dict[str, str] | None = None
    """of a run without a directory: what its directory would have held, for the journal"""
    weights: Weights | None = None
    """of a run without a directory, where they are kept"""

    @property
    def is_done(self) -> bool:
        """Whether its training is finished."""
        return self.result is not None and self.result.status in FINAL

    @property
    def is_known(self) -> bool:
        """Whether the run has ended, with or without an error."""
        return self.result is not None or self.error is not None


class DryRun(list[JobReturn]):
    """What a sweep with `dry_run=true` returns: no job has run.

    Attributes:
        directory: that of the sweep.
        lines: what it would do, as the command line prints it.
        records: of each run, in the order of the grid; empty for a search, whose runs are not known beforehand.
    """

    def __init__(self, directory: Path, lines: Sequence[str], records: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__()
        self.directory, self.lines, self.records = directory, list(lines), list(records)


def ended_rows(jobs: Sequence[Job], outcomes: Sequence[Outcome], directory: Path) -> list[Row]:
    """The rows of `results.csv`: one for each run that has ended, in the order of the grid.

    The runs of a search give different keys: what one gives, the others have from their configurations.
    """
    ended = [(job, end) for job, end in zip(jobs, outcomes, strict=True) if end.is_known]
    kinds = {tuple(override.key for override in job.spec.overrides) for job, _ in ended}
    keys = swept_keys([job.overrides for job, _ in ended]) if len(kinds) > 1 else []
    rows: list[Row] = [
        (
            job.number,
            run_directory.name_in(directory, job.place),
            with_values_of(job.config, keys, job.overrides) if keys else job.overrides,
            end.result,
            f"{type(end.error).__name__}: {end.error}" if end.error else "",
        )
        for job, end in ended
    ]
    return sorted(rows, key=itemgetter(0))  # runs of a search end in another order


def failed(job: Job, error: BaseException) -> Outcome:
    """The outcome of a job that raised.

    Raises:
        OSError: it was the disk's fault, which would be every other run's as well.
    """
    if is_storage(error):
        raise error
    if not isinstance(error, Exception):  # SystemExit, passed on, would end the sweep, and silently
        error = RuntimeError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
    job.open_directory()
    return Outcome(result=failure_record.write_failure(job.directory, job.config, error, job.log), error=error)
