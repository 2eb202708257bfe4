"""`sweep.py DIR list|show|rm|compact|restore`: sizes and statuses are right, and only what is mlpexp's is removed."""

import csv
import shutil
from pathlib import Path

import pytest
from conftest import Outcome, run_script, tree

from mlpexp import load_results
from mlpexp.__main__ import main
from mlpexp.analysis.sweep_analysis import analyse
from mlpexp.store import directory_lock, file_names, run_directory, run_table
from mlpexp.store.sweep_contents import runs

GRID = "-m name=s data=iris model.width=2,3 seed=1,2 trainer.max_epochs=1"


@pytest.fixture(scope="module")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run_script("train.py", GRID.split()).code == 0
    return place / "multirun"


@pytest.fixture
def swept(_trained: Path, here: Path) -> Path:
    """A sweep of four runs, one's own to spoil."""
    shutil.copytree(_trained, here / "multirun")
    return here / "multirun/s"


def sweep(*words: str) -> Outcome:
    return run_script("sweep.py", ["multirun/s", *words])


def names(table: Path) -> list[str]:
    return [str(row["name"]) for row in load_results(table)]


def bytes_below(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def fail(run: Path, status: str = "failed") -> None:
    """Let the marker of a run say that it failed."""
    from dataclasses import replace

    run_directory.write_result(run, replace(run_directory.read_result(run), status=status, files={}))


def test_list_has_every_run_in_the_order_of_results_with_its_status_and_size(swept):
    first, second, third, _ = names(swept)
    fail(swept / first)
    (swept / second / file_names.METRICS).write_text("")
    (swept / third / file_names.RESULT).unlink()
    found = runs(swept)
    assert [run.name for run in found] == names(swept)
    assert [run.status for run in found] == ["failed", "damaged", "unfinished", found[3].status]
    assert all(run.size == bytes_below(swept / run.name) and not run.foreign for run in found)
    ended = sweep("list")
    assert [line.split()[0] for line in ended.out.splitlines()[:4]] == [run.status for run in found]
    assert sweep("list", "--status", "failed,damaged").out.splitlines()[-1].startswith("2 runs (1 failed, 1 damaged), ")


def test_show_adds_up_sizes_and_shows_one_run(swept):
    ended = sweep("show")
    assert ended.out.startswith("multirun/s: 4 runs (")
    assert "checkpoints" in ended.out
    name = names(swept)[0]
    shown = sweep("show", name).out
    assert shown.startswith(f"{name}: ")
    assert "metrics.csv" in shown
    assert "val/loss" in shown


def test_rm_says_what_it_would_remove_and_removes_nothing_without_yes(swept, here):
    before = tree(here)
    ended = sweep("rm", names(swept)[0])
    assert (ended.code, tree(here)) == (0, before)
    assert "would be removed: 1 run" in ended.out
    assert ended.out.splitlines()[-1].endswith("--yes")


def test_rm_removes_runs_by_status_from_everywhere_and_the_same_command_trains_them_again(swept, train):
    first, second, *others = names(swept)
    fail(swept / first)
    (swept / second / "checkpoints/last.ckpt").write_bytes(b"")
    ended = sweep("rm", "--status", "failed,damaged", "--yes")
    assert (ended.code, ended.out.splitlines()[0][:32]) == (0, "removed: 2 runs (1 failed, 1 dam")
    assert names(swept) == others
    assert sorted(path.name for path in swept.iterdir() if path.is_dir()) == sorted(others)
    assert analyse(swept).planned == 2
    again = train(GRID)
    assert "4 runs: 2 done before, 2 new" in again.out
    assert names(swept) == [first, second, *others]


def test_rm_leaves_what_mlpexp_has_not_written(swept, here):
    name = names(swept)[0]
    (here / "mine.txt").write_text("mine")
    (swept / name / "notes.txt").write_text("mine")
    (swept / name / "checkpoints/own.ckpt").write_text("mine")
    (swept / name / "figures").symlink_to(here)
    ended = sweep("rm", name, "--yes")
    assert ended.code == 0, ended.err
    assert "3 files were not written by mlpexp and stay" in ended.out
    left = sorted(path.relative_to(swept / name).as_posix() for path in (swept / name).rglob("*") if not path.is_dir())
    assert left == ["checkpoints/own.ckpt", "notes.txt"]
    assert (here / "mine.txt").read_text() == "mine"


def test_no_link_leads_out_of_the_sweep(swept, here):
    name = names(swept)[0]
    (swept / name).rename(here / "elsewhere")
    (swept / name).symlink_to(here / "elsewhere")
    (here / "others").mkdir()
    shutil.copytree(here / "elsewhere", here / "others/run")
    (swept / "link").symlink_to(here / "others")
    text = (swept / file_names.RESULTS).read_text().replace(f'"{name}"', '"link/run"', 1)
    (swept / file_names.RESULTS).write_text(text)
    before = tree(here / "elsewhere"), tree(here / "others")
    assert len(runs(swept)) == 3
    assert sweep("rm", "--status", "ok,chance", "--yes").code == 0
    assert (tree(here / "elsewhere"), tree(here / "others")) == before


def test_rm_removes_what_was_set_aside(swept, train):
    name = names(swept)[0]
    fail(swept / name)
    assert train(GRID).code == 0
    assert [run.status for run in runs(swept) if run.is_aside] == ["failed"]
    assert sweep("rm", "--set-aside", "--yes").out.startswith("removed: 1 run (1 failed)")
    assert not (swept / file_names.SET_ASIDE).exists()
    assert len(names(swept)) == 4


@pytest.mark.parametrize("action", [["rm", "--status", "ok,chance"], ["compact"], ["restore"]])
def test_nothing_is_changed_while_the_sweep_trains(swept, here, action: list[str]):
    if action == ["restore"]:
        assert sweep("compact", "--yes").code == 0
    with directory_lock.hold(swept):
        before = tree(here)
        ended = sweep(*action, "--yes")
        assert (ended.code, tree(here)) == (2, before)
        assert "is in use by" in ended.line


def test_a_run_that_is_trained_further_is_not_removed(swept):
    name = names(swept)[0]
    with directory_lock.hold(swept / name):
        assert "is in use by" in sweep("rm", name, "--yes").line
    assert (swept / name / file_names.RESULT).exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rm"], "rm needs the runs to remove"),
        (["rm", "width=2,data=iris,max_epochs=1,seed=9"], "did you mean width=2,data=iris,max_epochs=1,seed="),
        (["rm", "../s"], "there is no run '../s'"),
        (["list", "--status", "fail"], "unknown status 'fail'; choose of ok, "),
    ],
)
def test_a_wrong_choice_is_one_line(swept, words: list[str], message: str):
    ended = sweep(*words)
    assert ended.code == 2
    assert message in ended.line


def test_what_is_no_sweep_is_refused(here):
    (here / "multirun/s").mkdir(parents=True)
    for action in ("list", "show", "rm", "compact", "restore"):
        assert "is not the directory of a sweep" in sweep(action, *["x"] * (action == "rm")).line


def test_a_directory_of_sweeps_and_a_single_run_are_no_sweep(swept, here):
    assert run_script("sweep.py", ["multirun", "list"]).line.endswith("a sweep; give one, e.g. multirun/s")
    shutil.copytree(swept / names(swept)[0], here / "run")
    (here / "run" / file_names.LOCK).touch()
    assert run_script("sweep.py", ["run", "rm", "--set-aside", "--yes"]).code == 2


def test_runs_are_named_by_patterns_and_paths_and_every_status_counts(swept):
    listed = names(swept)
    assert sweep("list", "--status", "failed", "--status", "ok,chance").out.splitlines()[-1].startswith("4 runs")
    assert sweep("rm", "width=2*").out.startswith("would be removed: 2 runs")
    assert sweep("show", f"multirun/s/{listed[0]}/").out.startswith(f"{listed[0]}: ")
    assert sweep("rm", f"multirun/s/{listed[0]}/", "*seed=2", "--yes").out.startswith("removed: 3 runs")
    assert len(names(swept)) == 1
    assert "there is no run 'width=[2]*'" in sweep("rm", "width=[2]*").line  # brackets are part of names


def test_compact_makes_the_table_that_record_table_would_have_written_and_restore_the_way_back(swept, train, here):
    rows = (swept / file_names.RESULTS).read_text()
    listed, size = names(swept), bytes_below(swept)
    text = {name: (swept / name / file_names.METRICS).read_text() for name in listed}
    assert sweep("compact").out.startswith("would be moved into")
    assert all((swept / name).is_dir() for name in listed)
    ended = sweep("compact", "--yes")
    assert ended.code == 0, ended.err
    assert not any((swept / name).exists() for name in listed)
    assert bytes_below(swept) < size / 1.5
    assert run_script("evaluate.py", [f"multirun/s/{listed[0]}", "--no-embedding"]).code == 0

    assert train(GRID.replace("name=s", "name=t") + " record=table").code == 0
    ours, theirs = (dict(run_table.read(here / "multirun" / name)) for name in "st")
    assert set(ours) == set(theirs) == set(listed)
    for name in listed:
        header, first = (table[name][file_names.METRICS].splitlines()[0] for table in (ours, theirs))
        assert header == first
        one, other = (run_directory.parse_result(table[name][file_names.RESULT], here) for table in (ours, theirs))
        assert (one.identity, one.metrics, one.status, one.files) == (other.identity, other.metrics, other.status, {})

    assert "4 runs: 4 done before" in train(GRID).out
    assert (swept / file_names.RESULTS).read_text() == rows
    assert analyse(swept).study.num_runs == 4

    assert sweep("restore", "--yes").out.startswith("4 runs have directories")
    assert not (swept / file_names.TABLE).exists()
    assert not (swept / file_names.WEIGHTS).exists()
    assert run_script("evaluate.py", [f"multirun/s/{listed[1]}", "--no-embedding"]).code == 0
    assert {name: (swept / name / file_names.METRICS).read_text() for name in listed} == text
    assert "4 runs: 4 done before" in train(GRID).out
    assert (swept / file_names.RESULTS).read_text() == rows


def test_compact_that_was_stopped_halfway_loses_nothing(swept, train):
    """The table has the runs, and of one directory half is gone."""
    copy = swept.with_name("copy")
    shutil.copytree(swept, copy)
    assert sweep("compact", "--yes").code == 0
    first, second, *_ = names(copy)
    shutil.copytree(copy / first, swept / first)
    shutil.copytree(copy / second, swept / second)
    (swept / second / file_names.RESULT).unlink()
    (swept / second / file_names.LAST).unlink()
    assert sweep("compact", "--yes").code == 0
    assert [name for name, _ in run_table.read(swept)].count(first) == 1
    assert "4 runs: 4 done before" in train(GRID).out


def test_compact_refuses_a_run_whose_file_was_changed(swept, here):
    path = swept / names(swept)[0] / file_names.METRICS
    path.write_text(path.read_text().replace("1", "2"))
    before = tree(here)
    ended = sweep("compact", "--yes")
    assert ended.code == 2
    assert "is not what the run's marker says; nothing was changed" in ended.line
    assert {place: content for place, content in tree(here).items() if not str(place).endswith(".lock")} == {
        place: content for place, content in before.items() if not str(place).endswith(".lock")
    }


def test_rm_takes_runs_out_of_a_table(swept):
    assert sweep("compact", "--yes").code == 0
    first, *others = names(swept)
    assert sweep("rm", first, "--yes").code == 0
    assert [name for name, _ in run_table.read(swept)] == others
    assert [row["name"] for row in csv.DictReader((swept / file_names.RESULTS).read_text().splitlines())] == others


@pytest.mark.parametrize("words", [["model.width=8,16", "seed=1,2"], ["-m", "model.width=8,16"]])
def test_settings_instead_of_a_directory_are_answered_with_the_command_that_trains(words, here, monkeypatch, capsys):
    settings = [word for word in words if word != "-m"]
    ended = run_script("sweep.py", words)
    assert ended.code == 2
    assert ended.err.endswith(f"scripts/train.py -m {' '.join(settings)}\n"), ended.err
    monkeypatch.setattr("sys.argv", ["mlpexp", *words])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"mlpexp: a command comes first; to train: mlpexp train {' '.join(words)}\n"
