"""`hydra.launcher.*`: where a sweep is trained. Checked before anything heavy is imported."""

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from mlpexp.runtime import portable
from mlpexp.runtime.errors import ConfigError

BACKENDS = ("auto", "process", "fork", "loky", "dask", "submitit")
EXECUTORS = ("slurm", "local")
EXTRAS = {"dask": ("distributed", "dask"), "submitit": ("submitit", "slurm")}  # backend -> module, extra
ANSWER_S = 5.0
KEY = "hydra.launcher."


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys below `hydra.launcher`."""

    max_runs: int = 100_000
    """a sweep of more runs than this is refused before it starts"""
    backend: str = "auto"
    """process (this one), fork (copies of it, which start at once), loky (new processes, which import everything),
    dask, submitit (Slurm); auto: fork where a sweep is long enough and there are several cores, else process"""
    workers: int | None = None
    """stacks that are trained at once; None: one for each core, or all stacks in a cluster's queue"""
    address: str | None = None
    """of a dask scheduler, e.g. tcp://127.0.0.1:8786; None starts a cluster on this machine"""
    executor: str = "slurm"
    """of submitit: slurm, or local for a trial on this machine"""
    slurm: Mapping[str, Any] = field(default_factory=dict)
    """what submitit's `update_parameters` takes: timeout_min, slurm_partition, mem_gb, …"""

    @property
    def num_workers(self) -> int:
        return self.workers or portable.available_cores()

    def check(self) -> None:
        """Raises `ConfigError`: what is wrong with the settings, one line each."""
        if problems := list(self._problems()):
            raise ConfigError(problems)

    def _problems(self) -> Iterator[str]:
        if type(self.max_runs) is not int or self.max_runs < 1:
            yield f"{KEY}max_runs={self.max_runs} is out of range: it must be a whole number from 1"
        if self.backend not in BACKENDS:
            yield _unknown("backend", self.backend, BACKENDS)
            return
        if self.backend == "fork" and not portable.can_fork():
            yield f"{KEY}backend=fork: this system cannot copy processes safely; use {KEY}backend=loky"
        if self.executor not in EXECUTORS:
            yield _unknown("executor", self.executor, EXECUTORS)
        if self.workers is not None and (type(self.workers) is not int or self.workers < 1):
            yield f"hydra.launcher.workers={self.workers} is out of range: it must be >= 1; e.g. {KEY}workers=2"
        if self.workers is not None and self.backend == "process":
            yield f"{KEY}workers needs a backend that has some, e.g. {KEY}backend=fork"
        if self.backend in EXTRAS and find_spec(EXTRAS[self.backend][0]) is None:
            module, extra = EXTRAS[self.backend]
            yield f"{KEY}backend={self.backend} needs {module}; install it with: pip install 'mlpexp[{extra}]'"
        if not isinstance(self.slurm, Mapping):
            yield f"{KEY}slurm={self.slurm} replaces a whole group; set its keys one by one, e.g. +{KEY}slurm.mem_gb=4"
        elif self.slurm and self.backend != "submitit":
            yield f"{KEY}slurm is for {KEY}backend=submitit"
        if self.address is not None and self.backend != "dask":
            yield f"{KEY}address is for {KEY}backend=dask"
        elif self.address is not None and (problem := _unreachable(self.address)):
            yield problem


def _unknown(name: str, value: str, choices: tuple[str, ...]) -> str:
    return f"unknown {name} {value!r}; choose one of {', '.join(choices)}, e.g. {KEY}{name}={choices[1]}"


def _unreachable(address: str) -> str | None:
    example = "hydra.launcher.address=tcp://127.0.0.1:8786"
    try:
        url = urlsplit(address)
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if not host or not port:
        return f"hydra.launcher.address={address} is no address of a dask scheduler; e.g. {example}"
    try:
        socket.create_connection((host, port), timeout=ANSWER_S).close()
    except OSError as error:
        return (
            f"hydra.launcher.address={address} does not answer ({error.strerror or error}); start one with "
            "dask scheduler, or leave the address out for a cluster on this machine"
        )
    return None
