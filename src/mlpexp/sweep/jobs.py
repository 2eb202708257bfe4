"""The jobs that `launch` hands to `train`, and what comes back; light, so that a refused sweep imports no torch."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra.core.utils import configure_log, env_override
from omegaconf import DictConfig

from mlpexp.config import Config
from mlpexp.sweep.compose import hydra_config


@dataclass(slots=True, kw_only=True)
class Job:
    """One run of a sweep; its directory with `.hydra` and an empty log is there."""

    number: int
    overrides: tuple[str, ...]
    config: Config
    directory: Path
    log: Path | None
    env_set: dict[str, str]
    """environment variables while it trains: `hydra.job.env_set`"""
    hydra: Callable[[], DictConfig]
    """makes the whole configuration, with Hydra's own node: 150 KiB, so it is not kept"""

    @contextmanager
    def surroundings(self) -> Iterator[None]:
        """What Hydra puts around a job: `HydraConfig`, its environment variables, its own log."""
        cfg = self.hydra()
        with hydra_config(cfg), env_override(self.env_set):
            configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)
            try:
                yield
            finally:
                configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)

    def failed(self, error: BaseException) -> "Outcome":
        """The outcome where it raised; the traceback goes into its own log and nowhere else."""
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as log:
                traceback.print_exception(error, file=log)
        if isinstance(error, Exception):
            return Outcome(error=error)
        # SystemExit, passed on, would end the sweep, and silently
        return Outcome(error=RuntimeError(f"{type(error).__name__}: {error}"))


@dataclass(slots=True, kw_only=True)
class Outcome:
    """How a run ended: the monitored metric of its best epoch, or what it raised."""

    objective: float | None = None
    error: Exception | None = None
