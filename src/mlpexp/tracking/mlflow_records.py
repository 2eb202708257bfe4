"""A run in MLflow's terms: tags, parameters, metrics, status."""

from collections.abc import Iterator

from mlpexp.tracking.trackers import TrackedRun

IDENTITY, GROUP, PARENT, STATUS = "mlpexp.identity", "mlpexp.group", "mlflow.parentRunId", "mlpexp.status"
MAX_VALUE = 6000  # characters of a parameter
# MLflow's statuses; `chance` was trained to its end, and `stopped` eliminated as intended
STATUSES = {"ok": "FINISHED", "chance": "FINISHED", "stopped": "KILLED", "diverged": "FAILED"}


def tags_of(run: TrackedRun, group: str, parent: str | None) -> dict[str, str]:
    """MLflow's tags of a run."""
    found = {"mlflow.runName": run.name, "mlflow.source.name": "mlpexp", "mlflow.source.type": "LOCAL"}
    found |= {IDENTITY: run.identity, GROUP: group, STATUS: run.status}
    if parent is not None:
        found[PARENT] = parent
    if run.message:
        found["mlflow.note.content"] = run.message[:MAX_VALUE]
    return found


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
