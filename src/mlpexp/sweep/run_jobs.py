"""The runs of a sweep as jobs, and their outcomes; imports no torch, so that a refused sweep ends quickly."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hydra.core.utils import configure_log, env_override
from omegaconf import DictConfig

from mlpexp.config.hparams import chosen, swept
from mlpexp.config.schema import Config
from mlpexp.store import atomic_files
from mlpexp.store.results_table import Row
from mlpexp.store.run_directory import FINAL, Result
from mlpexp.store.run_store import RunStore
from mlpexp.sweep.compose import hydra_config


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of a sweep; its directory exists with Hydra's files, unless `record=table`."""

    number: int
    overrides: tuple[str, ...]
    config: Config
    directory: Path
    log: Path | None
    """its log file; None if its logging is switched off"""
    env_set: dict[str, str]
    """`hydra.job.env_set`: environment variables during its training"""
    data_digest: str = ""
    """digest of the data at the start of the sweep"""
    done: "Result | None" = None
    """its result if an earlier start has finished it; it is not trained again"""
    swept: tuple[str, ...] = ()
    """the keys that the sweep varies; empty if its sweeper trains it in portions"""
    hydra: Callable[[], DictConfig]
    """makes the whole configuration with Hydra's node: 150 KiB, so it is not kept"""

    @property
    def hparams(self) -> dict[str, bool | int | float | str]:
        """The run's row of TensorBoard's HParams page."""
        return swept(self.config, self.swept, self.overrides) if self.swept else chosen(self.config)

    def packed(self, *, alone: bool) -> "Job":
        """The same as plain data, for another process; a stack does not need the whole configuration."""
        return replace(self, hydra=partial(_given, self.hydra() if alone else None))

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        """What Hydra provides to a job: `HydraConfig`, its environment variables, its log."""
        cfg = self.hydra()
        with hydra_config(cfg), env_override(self.env_set):
            configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)
            try:
                yield
            finally:
                configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)

    def note(self, text: str) -> None:
        """Append to the run's log."""
        if self.log is not None:
            atomic_files.append(self.log, text)


def _given(cfg: DictConfig | None) -> DictConfig:
    assert cfg is not None, "a run that trains in a stack was packed without its whole configuration"
    return cfg


@dataclass(slots=True, kw_only=True)
class Outcome:
    """The outcome of a run: its result, or the error that it raised, or both."""

    result: Result | None = None
    error: Exception | None = None
    files: dict[str, str] | None = None
    """of a run without a directory: what its directory would have held, for the journal"""

    @property
    def is_done(self) -> bool:
        """Whether its training is finished."""
        return self.result is not None and self.result.status in FINAL

    @property
    def is_known(self) -> bool:
        """Whether the run has ended, with or without an error."""
        return self.result is not None or self.error is not None


Ended = tuple[Job, Outcome]


def ended_rows(jobs: Sequence[Job], outcomes: Sequence[Outcome], directory: Path) -> list[Row]:
    """The rows of `results.csv`: one for each run that has ended, in the order of the grid."""
    store = RunStore(directory)
    return [
        (
            job.number,
            store.name_of(job.directory),
            job.overrides,
            end.result,
            f"{type(end.error).__name__}: {end.error}" if end.error else "",
        )
        for job, end in zip(jobs, outcomes, strict=True)
        if end.is_known
    ]
