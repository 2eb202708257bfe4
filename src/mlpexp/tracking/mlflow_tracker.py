"""`tracker=mlflow`: each run as a run of MLflow, nested below one for the sweep.

`MLFLOW_TRACKING_URI` says where (`sqlite:///mlflow.db` in the working directory by default, as in MLflow itself), and
`MLFLOW_EXPERIMENT_NAME` in which experiment (`mlpexp`). A SQLite file is written directly, a stack in one transaction
(`mlflow_database`); servers, other databases and directories by MLflow's client, which takes some requests for a run.
"""

import os
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlpexp.tracking.mlflow_database import (
    GROUP,
    IDENTITY,
    STATUSES,
    MlflowDatabase,
    database_file,
    params_of,
    points_of,
    tags_of,
)
from mlpexp.tracking.trackers import Group, TrackedRun

DEFAULT_URI, DEFAULT_EXPERIMENT = "sqlite:///mlflow.db", "mlpexp"
MAX_METRICS, MAX_PARAMS = 1000, 100  # in one request
# a server that does not answer must not hold up the training for MLflow's own four minutes
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
OF_THE_SWEEP = ("results.csv", "sweep.json", "multirun.yaml")


class MlflowTracker:
    """A `Tracker`."""

    def __init__(self, group: Group) -> None:
        self._group = group
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
        file = database_file(uri, group.home)
        if file is None:
            self._store: MlflowDatabase | MlflowClientStore = MlflowClientStore(uri, experiment, group)
        else:
            self._store = _database(file, experiment, group)
        self._runs = dict(self._store.runs())

    def known(self) -> Container[str]:
        return self._runs

    def record(self, runs: Sequence[TrackedRun]) -> None:
        parent = self._store.parent(self._group.name) if self._group.is_sweep else None
        new = [run for run in runs if run.identity not in self._runs]
        names = self._store.add(new, parent)
        self._runs |= {run.identity: [name] for run, name in zip(new, names, strict=True)}
        shorter = {name for run in runs for name in run.earlier if name in self._runs}
        self._store.remove([run for name in shorter for run in self._runs[name]])
        for name in shorter:
            del self._runs[name]

    def close(self) -> None:
        if self._group.is_sweep and self._runs:
            files = {name: path for name in OF_THE_SWEEP if (path := self._group.directory / name).is_file()}
            self._store.finish(self._store.parent(self._group.name), files)


def _database(file: Path, experiment: str, group: Group) -> "MlflowDatabase | MlflowClientStore":
    """The SQLite file, written directly if its tables are known, else by MLflow's client, which creates them."""
    if (database := MlflowDatabase.opened(file, experiment, group.key)) is not None:
        return database
    client = MlflowClientStore(f"sqlite:///{file}", experiment, group)  # makes the tables and the experiment
    return MlflowDatabase.opened(file, experiment, group.key) or client


class MlflowClientStore:
    """The runs of one group, written by MLflow's client; the methods are those of `MlflowDatabase`."""

    def __init__(self, uri: str, experiment: str, group: Group) -> None:
        from mlflow import MlflowClient

        self._client: Any = MlflowClient(uri)
        self._group = group.key
        stored = self._client.get_experiment_by_name(experiment)
        if stored is not None and stored.lifecycle_stage != "active":
            raise ValueError(f"MLflow's experiment {experiment} is deleted; restore it, or set MLFLOW_EXPERIMENT_NAME")
        self._experiment = self._client.create_experiment(experiment) if stored is None else stored.experiment_id
        self._parent: str | None = None

    def runs(self) -> dict[str, list[str]]:
        names: defaultdict[str, list[str]] = defaultdict(list)
        for run in self._search():
            identity = run.data.tags.get(IDENTITY)
            if identity is None:
                self._parent = run.info.run_id
            elif run.info.status == "RUNNING":
                self._client.delete_run(run.info.run_id)
            else:
                names[identity].append(run.info.run_id)
        return dict(names)

    def parent(self, name: str) -> str:
        if self._parent is None:
            run = self._client.create_run(self._experiment, run_name=name, tags={GROUP: self._group})
            self._parent = str(run.info.run_id)
        return self._parent

    def add(self, runs: Sequence[TrackedRun], parent: str | None) -> list[str]:
        return [self._add(run, parent) for run in runs]

    def remove(self, runs: Sequence[str]) -> None:
        for run in runs:
            self._client.delete_run(run)

    def finish(self, parent: str, artifacts: Mapping[str, Path]) -> None:
        self._upload(parent, artifacts)
        self._client.set_terminated(parent, "FINISHED")

    def _search(self) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment], f"tags.`{GROUP}` = '{self._group}'", max_results=1000, page_token=token
            )
            yield from page
            if not (token := page.token):
                return

    def _add(self, run: TrackedRun, parent: str | None) -> str:
        from mlflow.entities import Metric, Param

        tags = tags_of(run, self._group, parent)
        created = self._client.create_run(self._experiment, int(1000 * run.started), tags, run.name)
        name = str(created.info.run_id)
        params = [Param(key, value) for key, value in params_of(run).items()]
        metrics = [Metric(*point) for point in points_of(run)]
        for start in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(name, params=params[start : start + MAX_PARAMS])
        for start in range(0, len(metrics), MAX_METRICS):
            self._client.log_batch(name, metrics=metrics[start : start + MAX_METRICS])
        self._upload(name, run.files)
        self._client.set_terminated(name, STATUSES[run.status], int(1000 * run.ended))
        return name

    def _upload(self, run: str, artifacts: Mapping[str, Path]) -> None:
        for name, path in artifacts.items():
            self._client.log_artifact(run, str(path), name.rpartition("/")[0] or None)
