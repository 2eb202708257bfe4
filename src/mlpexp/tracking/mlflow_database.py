"""MLflow's SQLite file, written without MLflow: a stack of runs in one transaction.

MLflow's client takes three transactions for a run, longer than the training of a small network, and a second or two to
be imported. The tables are those that MLflow has made; where they have other columns than are known here, `opened`
returns None, and the client writes.
"""

import getpass
import math
import os
import shutil
import sqlite3
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlpexp.tracking.trackers import TrackedRun

IDENTITY, GROUP, PARENT, STATUS = "mlpexp.identity", "mlpexp.group", "mlflow.parentRunId", "mlpexp.status"
MAX_VALUE = 6000  # characters of a parameter
# MLflow's statuses; `chance` was trained to its end, and `stopped` eliminated as intended
STATUSES = {"ok": "FINISHED", "chance": "FINISHED", "stopped": "KILLED", "diverged": "FAILED"}
MAX_FLOAT = 1.7976931348623157e308  # what MLflow stores in place of infinity
WAIT_S = 30.0  # for another writer of the file
# the columns that are written; every other one must have a default
COLUMNS = {
    "runs": "run_uuid name source_type source_name entry_point_name user_id status start_time end_time source_version "
    "lifecycle_stage artifact_uri experiment_id",
    "tags": "key value run_uuid",
    "params": "key value run_uuid",
    "metrics": "key value timestamp step is_nan run_uuid",
    "latest_metrics": "key value timestamp step is_nan run_uuid",
}
_INSERT = {
    table: f"INSERT INTO {table} ({', '.join(names.split())}) VALUES ({', '.join('?' * len(names.split()))})"
    for table, names in COLUMNS.items()
}
Rows = dict[str, list[tuple[str | int | float | bool | None, ...]]]


def database_file(uri: str, home: Path) -> Path | None:
    """The SQLite file that `uri` names, a relative one from `home`; None for another kind of store."""
    if not uri.startswith("sqlite:///") or "?" in uri:
        return None
    return home / uri.removeprefix("sqlite:///")


class MlflowDatabase:
    """The runs of one group (tag `mlpexp.group`) in an experiment."""

    def __init__(self, connection: sqlite3.Connection, experiment: int, artifacts: Path, group: str) -> None:
        self._connection, self._experiment, self._artifacts, self._group = connection, experiment, artifacts, group

    @classmethod
    def opened(cls, file: Path, experiment: str, group: str) -> "MlflowDatabase | None":
        """The database; None if the file, its tables or the experiment are missing, or tables have other columns."""
        if not file.is_file():
            return None
        connection = sqlite3.connect(file, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            if not all(_is_known(connection, table, names.split()) for table, names in COLUMNS.items()):
                return None
            experiments = connection.execute(
                "SELECT experiment_id, artifact_location FROM experiments "
                "WHERE name = ? AND lifecycle_stage = 'active'",
                (experiment,),
            ).fetchall()
        except sqlite3.OperationalError:
            return None
        if len(experiments) != 1 or (artifacts := _local_path(str(experiments[0][1]))) is None:
            return None
        return cls(connection, experiments[0][0], artifacts, group)

    def runs(self) -> dict[str, list[str]]:
        """The complete runs by their identities; those that a crash has left incomplete are removed."""
        names: defaultdict[str, list[str]] = defaultdict(list)
        incomplete: list[str] = []  # a client was killed
        for run, identity, status in self._connection.execute(
            "SELECT own.run_uuid, own.value, runs.status FROM tags AS own "
            "JOIN tags AS shared ON own.run_uuid = shared.run_uuid "
            "JOIN runs ON own.run_uuid = runs.run_uuid WHERE own.key = 'mlpexp.identity' AND "
            "shared.key = 'mlpexp.group' AND shared.value = ? AND runs.lifecycle_stage = 'active' AND "
            "runs.experiment_id = ?",
            (self._group, self._experiment),
        ):
            if status == "RUNNING":
                incomplete.append(run)
            else:
                names[identity].append(run)
        self.remove(incomplete)
        return dict(names)

    def parent(self, name: str) -> str:
        """The run of the sweep, created unless it exists."""
        self._connection.execute("BEGIN IMMEDIATE")  # processes of one sweep may come at once
        with self._connection:
            return self._parent(name)

    def _parent(self, name: str) -> str:
        parent = self._connection.execute(
            "SELECT runs.run_uuid FROM runs JOIN tags ON runs.run_uuid = tags.run_uuid "
            "WHERE tags.key = 'mlpexp.group' AND tags.value = ? AND runs.lifecycle_stage = 'active' AND "
            "runs.experiment_id = ? AND runs.run_uuid NOT IN "
            "(SELECT run_uuid FROM tags WHERE key = 'mlpexp.identity')",
            (self._group, self._experiment),
        ).fetchone()
        if parent is not None:
            return str(parent[0])
        rows: Rows = defaultdict(list)
        run = uuid.uuid4().hex
        self._add_run(rows, run, name, "RUNNING", int(1000 * time.time()), None)
        rows["tags"] += [("mlflow.runName", name, run), ("mlpexp.group", self._group, run)]
        rows["tags"] += [("mlflow.source.name", "mlpexp", run), ("mlflow.source.type", "LOCAL", run)]
        self._insert(rows)
        return run

    def add(self, runs: Sequence[TrackedRun], parent: str | None) -> list[str]:
        rows: Rows = defaultdict(list)
        names = [uuid.uuid4().hex for _ in runs]
        for run, name in zip(runs, names, strict=True):
            self._add_run(rows, name, run.name, STATUSES[run.status], int(1000 * run.started), int(1000 * run.ended))
            rows["tags"] += [(key, value, name) for key, value in tags_of(run, self._group, parent).items()]
            rows["params"] += [(key, value, name) for key, value in params_of(run).items()]
            points = [(key, *_stored(value), moment, step) for key, value, moment, step in points_of(run)]
            metrics = [(key, value, moment, step, is_nan, name) for key, value, is_nan, moment, step in points]
            rows["metrics"] += metrics
            rows["latest_metrics"] += {row[0]: row for row in metrics}.values()
            self._store_artifacts(name, run.files)
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            self._insert(rows)
        return names

    def remove(self, runs: Sequence[str]) -> None:
        """Mark runs as deleted, as MLflow's client does; `mlflow gc` removes them."""
        now = int(1000 * time.time())
        with self._connection:
            self._connection.executemany(
                "UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = ? WHERE run_uuid = ?",
                [(now, run) for run in runs],
            )

    def finish(self, parent: str, artifacts: Mapping[str, Path]) -> None:
        self._store_artifacts(parent, artifacts)
        with self._connection:
            self._connection.execute(
                "UPDATE runs SET status = 'FINISHED', end_time = ? WHERE run_uuid = ?",
                (int(1000 * time.time()), parent),
            )

    def _add_run(self, rows: Rows, run: str, name: str, status: str, start: int, end: int | None) -> None:
        place = str(self._artifacts / run / "artifacts")
        values = (run, name[:250], "UNKNOWN", "", "", _user(), status, start, end, "", "active", place)
        rows["runs"].append((*values, self._experiment))

    def _insert(self, rows: Rows) -> None:
        for table, content in rows.items():
            self._connection.executemany(_INSERT[table], content)

    def _store_artifacts(self, run: str, files: Mapping[str, Path]) -> None:
        """Give a run its artifacts: links to files that are never changed in place, copies on another disk."""
        for name, path in files.items():
            place = self._artifacts / run / "artifacts" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            try:
                os.link(path, place)
            except OSError:
                shutil.copyfile(path, place)


def tags_of(run: TrackedRun, group: str, parent: str | None) -> dict[str, str]:
    """MLflow's tags of a run."""
    tags = {"mlflow.runName": run.name, "mlflow.source.name": "mlpexp", "mlflow.source.type": "LOCAL"}
    tags |= {IDENTITY: run.identity, GROUP: group, STATUS: run.status}
    if parent is not None:
        tags[PARENT] = parent
    if run.message:
        tags["mlflow.note.content"] = run.message[:MAX_VALUE]
    return tags


def params_of(run: TrackedRun) -> dict[str, str]:
    """MLflow's parameters, which are texts."""
    return {key: str(value)[:MAX_VALUE] for key, value in run.params.items()}


def points_of(run: TrackedRun) -> Iterator[tuple[str, float, int, int]]:
    """Name, value, milliseconds since 1970 and step of each metric: the curves, then the final values."""
    for epoch, (values, ended) in enumerate(zip(run.history, run.epoch_ends, strict=True)):
        moment = int(1000 * ended)
        yield from ((name, value, moment, epoch) for name, value in values.items())
    moment, step = int(1000 * run.ended), run.epoch or 0
    yield from ((name, value, moment, step) for name, value in run.summary.items())


def _is_known(connection: sqlite3.Connection, table: str, names: Sequence[str]) -> bool:
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    needed = {name for _, name, _, is_needed, default, _ in columns if is_needed and default is None}
    return {*names} <= {column[1] for column in columns} and needed <= {*names}


def _local_path(location: str) -> Path | None:
    if location.startswith("/"):
        return Path(location)
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None


def _stored(value: float) -> tuple[float, bool]:
    """The number that MLflow stores, and whether it stands for NaN."""
    if math.isnan(value):
        return 0.0, True
    return (math.copysign(MAX_FLOAT, value) if math.isinf(value) else float(value)), False


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name
        return "unknown"
