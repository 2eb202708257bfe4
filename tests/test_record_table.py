"""`record=table`: a sweep without a directory per run has the numbers of one with them, and carries on as it does."""

import csv
import gc
from pathlib import Path

import pytest

from mlpexp.analysis import load_sweep, run_files
from mlpexp.nn.metric_columns import columns
from mlpexp.store import file_names, run_table

GRID = "-m model.width=4,5 seed=0,1,2 trainer.max_epochs=2 tracking.tensorboard=false hydra.sweep.dir=there"
TIMES = ("seconds",)


def rows(directory: str) -> list[dict[str, str]]:
    with Path(directory, "results.csv").open(newline="") as file:
        return [{name: cell for name, cell in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def test_the_table_is_that_of_a_sweep_with_directories_and_nothing_else_is_left(train):
    assert train(f"{GRID} record=table").code == 0
    assert train(GRID.replace("=there", "=full")).code == 0
    assert rows("there") == rows("full")
    assert {path.name for path in Path("there").iterdir()} == {
        ".lock", "multirun.yaml", "results.csv", "runs.jsonl", "sweep.json",
    }  # fmt: skip
    names = [row["name"] for row in rows("full")]
    ours, theirs = (run_files.curves(Path(place), names) for place in ("there", "full"))
    assert ours.runs == 6 and ours.epochs == 2
    assert all((ours.values[metric] == theirs.values[metric]).all() for metric in columns("train", "val"))
    assert len(load_sweep.read(Path("there"))[1].results) == 6


def test_a_run_that_shares_no_stack_leaves_its_line_alone(train):
    assert train(f"{GRID} record=table model.variant=backprop,torch_nn seed=0").code == 0
    found = dict(run_table.read(Path("there")))
    assert set(found) == {row["name"] for row in rows("there")} and len(found) == 4
    assert not [path for path in Path("there").iterdir() if path.is_dir()]
    kept = {file_names.METRICS, file_names.RESULT, file_names.OVERRIDES}
    assert all(set(files) == kept for files in found.values())


def test_the_same_command_trains_only_what_no_whole_line_tells_of(train):
    assert train(f"{GRID} record=table").code == 0
    before = rows("there")
    path = Path("there", "runs.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    spoiled = lines[1].replace(b"train/loss", b"train/Loss", 1)
    path.write_bytes(b"".join([lines[0], spoiled, *lines[2:5], lines[5][:100]]))
    gc.collect()  # a sweep keeps its directory for as long as it lives
    again = train(f"{GRID} record=table")
    assert again.code == 0
    assert "6 runs: 4 done before, 2 new" in again.out
    assert rows("there") == before
    assert path.read_bytes().startswith(lines[0])
    gc.collect()
    assert "nothing to train" in train(f"{GRID} record=table dry_run=true").out


def test_a_single_run_is_refused(train):
    ended = train("record=table")
    assert ended.code == 2
    assert ended.line == "train.py: record=table belongs to a sweep; add -m, or leave it out"


def test_a_job_that_moves_into_its_directory_is_refused_before_anything_is_written(train, here):
    ended = train(f"{GRID} record=table hydra.job.chdir=true")
    assert ended.code == 2
    assert ended.line.startswith("train.py: record=table keeps no directory per run, but hydra.job.chdir")
    assert not list(here.iterdir())


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\x00\xff{", b"0 {}\n"])
def test_lines_that_nobody_wrote_are_nobodys_runs(tmp_path, content):
    (tmp_path / file_names.TABLE).write_bytes(content)
    assert run_table.results(tmp_path) == {}
    run_table.append(tmp_path, [("a", {"b": "c\n"})])
    assert list(run_table.read(tmp_path)) == [("a", {"b": "c\n"})]
