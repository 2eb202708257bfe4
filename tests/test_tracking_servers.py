"""MLflow and Weights & Biases have what the files of the runs have; skipped where they are not installed."""

import sqlite3
import struct
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mlpexp.runtime.errors import UserError
from mlpexp.store import file_names, run_directory
from mlpexp.tracking import mlflow_tracker
from mlpexp.tracking.mlflow_database import IDENTITY, PARENT, MlflowDatabase

SWEEP = "-m name=s data=iris model.width=4 trainer.max_epochs=2 "
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
needs_mlflow = pytest.mark.skipif(find_spec("mlflow") is None, reason="needs mlflow: pip install 'mlpexp[mlflow]'")
needs_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="needs wandb: pip install 'mlpexp[wandb]'")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch, tmp_path):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


def mlflow_runs(file: str = "mlflow.db") -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{Path(file).absolute()}")  # it keeps clients by their texts
    return client, list(client.search_runs([client.get_experiment_by_name("mlpexp").experiment_id]))


def check_mlflow(client: Any, runs: list[Any], sweep: Path) -> None:
    """Every run of the sweep is there once, with its numbers, below the one run of the sweep."""
    [parent] = [run for run in runs if PARENT not in run.data.tags]
    own = {run.info.run_name: run for run in runs if PARENT in run.data.tags}
    assert len(own) == len(runs) - 1
    assert (parent.info.run_name, parent.info.status) == (sweep.name, "FINISHED")
    assert "results.csv" in {file.path for file in client.list_artifacts(parent.info.run_id)}
    results = sorted(sweep.glob(f"*/{file_names.RESULT}"))
    assert {path.parent.name for path in results} == set(own)
    for path in results:
        run, result = own[path.parent.name], run_directory.read_result(path.parent)
        history = run_directory.parse_metrics((path.parent / file_names.METRICS).read_text(), path)
        assert run.data.tags[PARENT] == parent.info.run_id
        assert run.data.tags[IDENTITY] == result.identity
        assert run.info.status == "FINISHED"
        for name in history[0]:
            points = client.get_metric_history(run.info.run_id, name)
            assert [(point.step, point.value) for point in points] == list(enumerate(row[name] for row in history))
        assert run.data.metrics["test/acc"] == result.metrics["test/acc"]
        assert run.data.metrics["best/val/loss"] == result.metrics["val/loss"]
        assert run.data.params["seed"] == path.parent.name[-1]
        best = client.download_artifacts(run.info.run_id, "checkpoints/best.ckpt")
        assert Path(best).read_bytes() == (path.parent / file_names.BEST).read_bytes()


@needs_mlflow
def test_mlflow_has_a_sweep_that_grows_and_is_trained_further_once(train):
    for more in ("seed=0,1", "seed=0,1,2 trainer.max_epochs=3"):
        assert train(f"{SWEEP} tracker=mlflow {more}").code == 0
        check_mlflow(*mlflow_runs(), Path("multirun/s"))


@pytest.mark.thorough
@needs_mlflow
def test_mlflows_client_writes_what_is_written_into_its_database(train, monkeypatch):
    assert train(f"{SWEEP} tracker=mlflow seed=0,1").code == 0
    _, direct = mlflow_runs()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    monkeypatch.setattr(MlflowDatabase, "opened", lambda *_: None)
    assert train(f"{SWEEP} tracker=mlflow seed=0,1").code == 0
    client, by_client = mlflow_runs("other.db")
    check_mlflow(client, by_client, Path("multirun/s"))
    assert train(f"{SWEEP} tracker=mlflow seed=0,1 trainer.max_epochs=3").code == 0
    check_mlflow(*mlflow_runs("other.db"), Path("multirun/s"))

    def content(runs: list[Any]) -> dict[str, Any]:
        return {
            run.info.run_name: (
                run.data.params,
                run.data.metrics,
                run.info.status,
                {key: value for key, value in run.data.tags.items() if key not in (PARENT, "mlflow.user")},
            )
            for run in runs
            if PARENT in run.data.tags
        }

    assert content(direct) == content(by_client)


@pytest.mark.thorough
@needs_mlflow
def test_mlflows_client_writes_where_the_tables_are_others(train):
    assert train(f"{SWEEP} tracker=mlflow seed=0").code == 0
    with sqlite3.connect("mlflow.db") as connection:
        connection.execute("ALTER TABLE latest_metrics ADD COLUMN unit VARCHAR NOT NULL DEFAULT ''")
    connection.close()
    assert MlflowDatabase.opened(Path("mlflow.db"), "mlpexp", "x") is not None  # it has a default
    with sqlite3.connect("mlflow.db") as connection:
        connection.execute("ALTER TABLE params RENAME COLUMN value TO content")
    connection.close()
    assert MlflowDatabase.opened(Path("mlflow.db"), "mlpexp", "x") is None


@pytest.mark.thorough
@needs_mlflow
def test_runs_that_a_killed_client_has_left_incomplete_are_replaced(train, monkeypatch):
    monkeypatch.setattr(MlflowDatabase, "opened", lambda *_: None)
    uploaded = mlflow_tracker.MlflowClientStore._upload

    def die(self, run, artifacts):
        uploaded(self, run, artifacts)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_tracker.MlflowClientStore, "_upload", die)
        assert train(f"{SWEEP} tracker=mlflow seed=0,1").code == 130
    assert train(f"{SWEEP} tracker=mlflow seed=0,1").code == 0
    check_mlflow(*mlflow_runs(), Path("multirun/s"))


@pytest.mark.thorough
@needs_mlflow
def test_a_server_that_is_down_is_one_line(train, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    ended = train(f"{SWEEP} tracker=mlflow seed=0,1")
    assert ended.code == 0
    assert sum("tracker=mlflow does not record runs now" in line for line in ended.lines) == 1
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert train(f"{SWEEP} tracker=mlflow seed=0,1").code == 0
    check_mlflow(*mlflow_runs(), Path("multirun/s"))


def wandb_records(directory: Path) -> list[Any]:
    """The records of an offline run, read as LevelDB's log format says."""
    from wandb.proto.wandb_internal_pb2 import Record

    [path] = directory.glob("*.wandb")
    content, position, whole, found = path.read_bytes(), 7, b"", []
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        whole += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(whole))
            whole = b""
    return found


@pytest.mark.thorough
@needs_wandb
def test_wandb_has_each_run_once_offline_also_when_it_is_trained_further(train):
    for more, epochs in (("seed=0,1", 2), ("seed=0,1,2", 2), ("seed=0,1,2 trainer.max_epochs=3", 3)):
        assert train(f"{SWEEP} tracker=wandb {more}").code == 0
        copies = sorted(Path("wandb").glob("offline-run-*"))
        assert len(copies) == len(list(Path("multirun/s").glob(f"*/{file_names.RESULT}")))
        seen: Counter[str] = Counter()
        for copy in copies:
            records = wandb_records(copy)
            [run] = [record.run for record in records if record.WhichOneof("record_type") == "run"]
            seen[run.display_name] += 1
            assert run.run_group == "s"
            directory = Path("multirun/s") / run.display_name
            history = run_directory.parse_metrics((directory / file_names.METRICS).read_text(), directory)
            assert len(history) == epochs
            logged = [record.history for record in records if record.WhichOneof("record_type") == "history"]
            values = [{(item.key or item.nested_key[0]): float(item.value_json) for item in row.item} for row in logged]
            assert [{name: row[name] for name in history[0]} for row in values] == history
        assert set(seen.values()) == {1}


@pytest.mark.thorough
def test_a_damaged_key_of_a_group_is_one_line(train):
    assert train(f"{SWEEP} tracker=csv seed=0").code == 0
    Path("multirun/s/.tracking").write_text("x")
    ended = train(f"{SWEEP} tracker=csv seed=0,1")
    assert ended.code == 0
    assert UserError.__name__ in ended.line
    assert "is damaged; remove it" in ended.line
