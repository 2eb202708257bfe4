"""`results.csv`: what a table of a sweep holds, and how it is read."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlpexp import load_results
from mlpexp.analysis import load_sweep
from mlpexp.runtime.errors import UserError
from mlpexp.store import csv_tables, run_directory

LAST_COLUMNS = ["epoch", "epochs", "num_parameters", "seconds", "message"]
METRICS = ["train/loss", "train/acc", "val/loss", "val/acc", "test/loss", "test/acc"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with runs alone, runs that can diverge, and values that need quotes."""
    from conftest import run_script

    place = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        grid = ["model.width=[8,4],16", "optimizer.lr=0.1,1e30", "model.variant=torch_nn,backprop", "seed=3"]
        ended = run_script("train.py", ["-m", "name=it", "trainer.max_epochs=2", "data.batch_size=256", *grid])
    assert ended.code == 0, ended.err
    return place / "multirun/it"


def test_one_row_a_run_in_the_order_of_the_grid(sweep: Path) -> None:
    with (sweep / "results.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    swept = ["model.width", "optimizer.lr", "model.variant"]
    assert header == ["run", "name", "status", *swept, *METRICS, *LAST_COLUMNS]
    assert [row[0] for row in rows] == [str(i) for i in range(8)]
    assert [row[3:6] for row in rows] == [
        [width, lr, variant]
        for width in ("[8,4]", "16")
        for lr in ("0.1", "1e+30")
        for variant in ("torch_nn", "backprop")
    ]
    assert [row[2] for row in rows if row[4] == "0.1"] == ["ok"] * 4
    assert {row[2] for row in rows} <= {"ok", "chance", "diverged"}


def test_each_row_says_what_the_run_itself_says_at_full_precision(sweep: Path) -> None:
    for row in load_results(sweep):
        result = run_directory.read_result(sweep / row["name"])
        assert row["status"] == result.status
        assert (row["epoch"], row["epochs"], row["num_parameters"]) == (
            result.epoch,
            result.epochs,
            result.num_parameters,
        )
        assert row["message"] == result.message
        for name in METRICS:
            found, said = row[name], result.metrics[name]
            assert found == said or (math.isnan(said) and (found is None or math.isnan(found))), name
        config = (sweep / row["name"] / ".hydra/config.yaml").read_text()
        assert f"  variant: {row['model.variant']}\n" in config
    names = [row["name"] for row in load_results(sweep / "results.csv")]
    assert len(set(names)) == 8


def test_a_table_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no results\.csv; give a sweep's directory"):
        load_results(tmp_path)


def test_records_are_plain(sweep: Path) -> None:
    records = load_results(sweep)
    assert json.loads(json.dumps(records[0])) == records[0]
    assert isinstance(records[0]["val/loss"], float)
    assert isinstance(records[0]["optimizer.lr"], float)


def test_a_key_that_only_some_runs_of_a_search_give_has_a_value_for_each(train: Callable[..., Any], here: Path) -> None:
    grid = (
        "-m hydra/sweeper=optuna name=s hydra.sweeper.n_trials=4 hydra.sweeper.seed=2 model.width=choice(4,8) "
        "optimizer.name=choice(sgd,adam) optimizer.momentum=interval(0.1,0.9) data.batch_size=500 trainer.max_epochs=1 "
        "hydra.sweeper.conditions={optimizer.momentum:{optimizer.name:sgd}} hydra.sweeper.final_seeds=1"
    )
    assert train(grid).code == 0
    sweep = here / "multirun/s"
    rows = load_results(sweep)
    assert len(rows) > 4
    assert {row["seed"] for row in rows} == {0, 1}
    assert {row["optimizer.name"] for row in rows} == {"sgd", "adam"}
    for row in rows:  # adam has no momentum
        assert (row["optimizer.momentum"] is None) == (row["optimizer.name"] == "adam")
    table, sources = load_sweep.read(sweep)
    assert ([key.levels for key in table.seeds], sources.corrected) == ([["0", "1"]], [])
    blank = [row | {"seed": None if row["seed"] == 0 else 1} for row in rows]  # as earlier programs wrote it
    (sweep / "results.csv").write_text(csv_tables.csv_text([*rows[0]], [[*row.values()] for row in blank]))
    table, sources = load_sweep.read(sweep)
    assert ([key.levels for key in table.seeds], sources.corrected) == ([["0", "1"]], [])
    wrong = [row | {"seed": 7} for row in rows]
    (sweep / "results.csv").write_text(csv_tables.csv_text([*rows[0]], [[*row.values()] for row in wrong]))
    table, sources = load_sweep.read(sweep)
    assert ([key.levels for key in table.seeds], len(sources.corrected)) == ([["0", "1"]], len(rows))
    (sweep / "results.csv").unlink()
    assert [key.levels for key in load_sweep.read(sweep)[0].seeds] == [["0", "1"]]
