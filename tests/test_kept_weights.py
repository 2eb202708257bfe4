"""`record=table keep_weights=true`: the weights of all runs in one file are those of a sweep with directories."""

import gc
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Outcome, run_script
from sklearn.datasets import load_digits

import mlpexp
from mlpexp.store import checkpoint_files, file_names, run_table, run_weights

GRID = (
    "-m model.width=4 model.variant=torch_nn,backprop seed=0,1 trainer.max_epochs=2 tracking.tensorboard=false "
    "tracking.figures=false hydra.sweep.dir="
)
KEPT = "record=table keep_weights=true"


def script(name: str, *arguments: object) -> Outcome:
    return run_script(f"{name}.py", [*map(str, arguments)])


@pytest.fixture(scope="module")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for words in (f"{GRID}table {KEPT}", f"{GRID}runs"):
            assert script("train", *words.split()).code == 0
    return place


@pytest.fixture
def pair(_pair: Path, here: Path) -> Path:
    """The working directory, with a sweep and the same sweep with directories, one's own to spoil."""
    shutil.copytree(_pair, here, dirs_exist_ok=True)
    return here


def check_equal(wanted: str) -> None:
    assert not [path for path in Path("table").iterdir() if path.is_dir()]
    for row in mlpexp.load_results("runs"):
        ours = checkpoint_files.load(Path("table", row["name"], wanted))
        theirs = torch.load(Path("runs", row["name"], wanted), weights_only=True)
        assert ours["state_dict"].keys() == theirs["state_dict"].keys()
        assert all(torch.equal(values, theirs["state_dict"][name]) for name, values in ours["state_dict"].items())
        # alike but for where the run was recorded
        config, other = (found["hyper_parameters"]["config"] for found in (ours, theirs))
        assert config | {"record": "", "keep_weights": ""} == other | {"record": "", "keep_weights": ""}
        assert ours["hyper_parameters"]["data"] == theirs["hyper_parameters"]["data"]


def test_the_weights_are_those_of_directories_to_the_last_bit(pair):
    check_equal(file_names.BEST)


def test_the_weights_are_those_that_the_runs_were_tested_with(train):
    for place in (f"table {KEPT}", "runs"):
        words = f"{GRID}{place} test_weights=last ema.decay=0.9 model.variant=torch_nn"
        assert train(words).code == 0
    check_equal(file_names.LAST)


def test_everything_that_takes_weights_takes_them_from_the_table(pair, train):
    raw = load_digits().data[:9]
    table, runs = mlpexp.load_sweep("table"), mlpexp.load_sweep("runs")
    assert (table.predict_proba(raw) == runs.predict_proba(raw)).all()
    assert (table.ensemble(3, "greedy").predict_proba(raw) == runs.ensemble(3, "greedy").predict_proba(raw)).all()
    assert table[0].data.digest == runs[0].data.digest
    np.savetxt("new.csv", raw, delimiter=",")
    name = table.table[1]["name"]
    for run, words in (("", ["--ensemble", "2"]), (f"/{name}", [])):
        printed = [script("predict", f"{place}{run}", "--data", "new.csv", *words) for place in ("table", "runs")]
        assert printed[0].code == 0 and printed[0].out == printed[1].out
    shown = [script("evaluate", f"{place}/{name}", "--no-embedding") for place in ("table", "runs")]
    assert shown[0].code == 0 and shown[0].out.replace("table/", "runs/") == shown[1].out
    assert (
        script("evaluate", f"table/{name}", "--no-embedding").out == shown[0].out
    )  # once more: it has a directory now
    assert script("evaluate", "table", "--ensemble", 2).code == 0
    # the directories of the evaluations are no runs, and the sweep carries on
    again = train(f"{GRID}table {KEPT} seed=0,1,2 model.variant=torch_nn")
    assert again.code == 0 and "3 runs: 2 done before, 1 new" in again.out


def test_weights_of_lines_that_a_crash_has_cut_are_written_again(train):
    assert train(f"{GRID}there {KEPT}").code == 0
    before = mlpexp.load_sweep("there").predict_proba(load_digits().data[:5])
    table, weights = Path("there", file_names.TABLE), Path("there", file_names.WEIGHTS)
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join([*lines[:-1], lines[-1][:80]]))
    with weights.open("ab") as file:
        file.write(b"the beginning of a checkpoint")
    gc.collect()
    again = train(f"{GRID}there {KEPT}")
    assert "4 runs: 3 done before, 1 new" in again.out
    assert (mlpexp.load_sweep("there").predict_proba(load_digits().data[:5]) == before).all()


def test_damaged_weights_and_runs_without_any_are_refused_in_one_line(train):
    grid = GRID.replace("variant=torch_nn,backprop", "variant=torch_nn")
    assert train(f"{grid}there {KEPT}").code == 0
    weights = Path("there", file_names.WEIGHTS)
    content = bytearray(weights.read_bytes())
    content[len(content) // 4] ^= 1
    weights.write_bytes(content)
    assert "weights.bin is damaged" in script("evaluate", "there", "--ensemble", "all").line
    weights.unlink()
    assert "weights.bin does not exist" in script("export", "there", "--ensemble", "all", "--format", "torch").line
    assert train(f"{grid}bare record=table").code == 0
    assert not Path("bare", file_names.WEIGHTS).exists()
    name = mlpexp.load_results("bare")[0]["name"]
    for place, words in (("bare", ["--ensemble", "2"]), (f"bare/{name}", [])):
        line = script("evaluate", place, *words).line
        assert "keeps no weights (record=table); train it with keep_weights=true" in line
    with pytest.raises(mlpexp.UserError, match="record=table"):
        mlpexp.load_sweep("bare").weights()


@pytest.mark.parametrize("words", ["keep_weights=true", "-m seed=0,1 keep_weights=true"])
def test_they_are_for_the_table_only(train, here, words):
    assert "keep_weights=true belongs to record=table" in train(words).line
    assert not list(here.iterdir())


def test_a_place_in_the_file_that_nobody_wrote_is_refused(tmp_path):
    for entry in ("checkpoints/best.ckpt 0 4", "../x 0 4 " + "0" * 64, "checkpoints/best.ckpt -1 4 " + "0" * 64):
        run_table.append(tmp_path, [(entry[-5:], {file_names.WEIGHTS: entry})])
        with pytest.raises(mlpexp.UserError, match="are listed as"):
            run_weights.checkpoint_of(tmp_path / entry[-5:])
