"""Passes finished runs to their trackers, after every stack and at the end of a command.

A tracker that fails is reported in one line and not called again; the next command records the missing runs.
"""

import contextlib
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlpexp.config.hparams import chosen
from mlpexp.config.schema import Config
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError, described
from mlpexp.store import atomic_files, file_names, run_directory, sweep_manifest
from mlpexp.store.further_training import earlier_identities
from mlpexp.store.run_directory import Result
from mlpexp.store.run_store import RunStore
from mlpexp.tracking.trackers import TRACKERS, Group, TrackedRun, Tracker

log = logging.getLogger(__name__)
ARTIFACTS = (file_names.RESULT, file_names.METRICS, file_names.CONFIG, file_names.BEST)


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedRun:
    """A run that has ended.

    Attributes:
        files: the texts of its small files, where they are not in its directory or in the table yet.
        earlier: identities that it had, beside those in the plan of the sweep.
    """

    config: Config
    directory: Path
    result: Result
    files: Mapping[str, str] | None = None
    earlier: tuple[str, ...] = ()


class RunTracking:
    """The trackers of the runs of one sweep, or of a run alone.

    Args:
        home: the working directory of the command.
        warn: gets a line about each tracker that fails.
    """

    def __init__(self, directory: Path, home: Path, warn: Callable[[str], None], *, is_sweep: bool) -> None:
        self.directory = directory.absolute()
        self._home, self._warn, self._is_sweep = home, warn, is_sweep
        self._store = RunStore(self.directory)
        self._open: dict[str, Tracker | None] = {}  # None: it has failed

    def record(self, runs: Iterable[EndedRun]) -> None:
        """Record the runs that their trackers have not recorded yet."""
        by_tracker: dict[str, list[EndedRun]] = {}
        for run in runs:
            for name in run.config.trackers:
                by_tracker.setdefault(name, []).append(run)
        for name, ended in by_tracker.items():
            with self._reporting(name):
                if (tracker := self._tracker(name)) is None:
                    continue
                recorded, lengths = tracker.known(), self._earlier_lengths()
                new = []
                for run in ended:
                    identity = run.result.identity
                    identities = earlier_identities(run.config, run.result.data_digest, lengths)
                    earlier = tuple({*run.earlier, *identities} - {identity})
                    if identity not in recorded or any(name in recorded for name in earlier):
                        new.append(self._tracked(run, earlier))
                if new:
                    tracker.record(new)

    def close(self) -> None:
        """Close all trackers, after the last run of this command."""
        for name, tracker in self._open.items():
            if tracker is not None:
                with self._reporting(name):
                    tracker.close()

    @contextlib.contextmanager
    def _reporting(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a server that is down, a full disk, a library of another version, ...
            self._open[name] = None
            log.info("tracker=%s has failed", name, exc_info=True)
            reason = described(error) if len(described(error)) < 300 else f"{described(error)[:300]}…"
            advice = "the same command records them" if self._is_sweep else "nothing else is lost"
            self._warn(
                f"tracker={name} does not record runs now: {reason}; they are kept in {self.directory}, {advice}"
            )

    def _tracker(self, name: str) -> Tracker | None:
        if name not in self._open:
            group = Group(key=_key(self.directory), directory=self.directory, home=self._home, is_sweep=self._is_sweep)
            self._open[name] = TRACKERS[name].open(group)
        return self._open[name]

    def _earlier_lengths(self) -> list[int]:
        """The numbers of epochs that the runs of the sweep had before they were trained further."""
        manifest = sweep_manifest.read(self.directory) if self._is_sweep else None
        return manifest.shorter if manifest is not None else []

    def _tracked(self, run: EndedRun, earlier: tuple[str, ...]) -> TrackedRun:
        result, name = run.result, self._store.name_of(run.directory)
        text = (run.files or {}).get(file_names.METRICS)
        if text is None:
            place = run.directory / file_names.METRICS
            text = safe_files.read_text(place) if place.is_file() else self._store.read(name, file_names.METRICS)
        if text is None:
            raise UserError(f"{run.directory} has no {file_names.METRICS}")
        marker = run.directory / file_names.RESULT
        ended = marker.stat().st_mtime if marker.exists() else time.time()
        return TrackedRun(
            name=self.directory.name if name == "." else name,
            identity=result.identity,
            earlier=earlier,
            params=chosen(run.config),
            history=run_directory.parse_metrics(text, run.directory / file_names.METRICS),
            final=result.metrics,
            epoch=result.epoch,
            status=result.status,
            message=result.message or "",
            started=ended - result.seconds.get("total", result.seconds["fit"]),
            ended=ended,
            files={file: path for file in ARTIFACTS if (path := run.directory / file).is_file()},
        )


def tracking_of_run(directory: Path, sweep: Path | None, home: Path, warn: Callable[[str], None]) -> RunTracking:
    """The trackers of a run that trains alone.

    Args:
        sweep: of which it is one run; a run that is trained further in a sweep that is tracked is one of it, too.
    """
    parent = directory.absolute().parent
    if sweep is None and (parent / file_names.TRACKING).is_file():
        sweep = parent
    return RunTracking(directory if sweep is None else home / sweep, home, warn, is_sweep=sweep is not None)


def _key(directory: Path) -> str:
    """The key of the directory in trackers, created once; it stays the same when the directory is moved."""
    path = directory / file_names.TRACKING
    if not path.exists():
        temporary = path.with_name(f".tracking.{os.getpid()}{atomic_files.SUFFIX}")
        atomic_files.write(temporary, f"{uuid.uuid4().hex}\n")
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(temporary, path, follow_symlinks=False)
        temporary.unlink()
    key = safe_files.read_text(path).strip()
    if not re.fullmatch("[0-9a-f]{32}", key):
        raise UserError(f"{path} is damaged; remove it, and the runs are recorded anew")
    return key
