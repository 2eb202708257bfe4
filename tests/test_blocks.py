"""Folds, data seeds, diverged runs and several sweeps in the report's statistics."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import report_sweeps
from conftest import run_script
from scipy import stats

from mlpexp.analysis import blocks, joined_sweeps, load_sweep
from mlpexp.analysis.sweep_analysis import analyse, analyse_table
from mlpexp.analysis.sweep_table import from_records
from mlpexp.data.data_sets import DATA_SETS
from mlpexp.report import comparison_sentences
from mlpexp.report.sentences import headline, method

DATA = {"data.val_fraction": {"0.15"}, "data.test_fraction": {"0.15"}, "data.name": {"iris"}}


def study(settings, status=lambda number: "ok"):
    rng = np.random.default_rng(0)
    metrics = ("val/loss", "val/acc", "test/acc")
    rows = [
        {"name": str(i), "status": status(i), **one, **{name: float(rng.normal()) for name in metrics}}
        for i, one in enumerate(settings)
    ]
    return from_records(Path(), rows)


def grid(**values):
    names = {"width": "model.width", "fold": "data.fold", "data_seed": "data.seed", "seed": "seed"}
    found = [{}]
    for name, levels in values.items():
        found = [one | {names[name]: level} for one in found for level in levels]
    return found


@pytest.mark.parametrize(
    ("settings", "keys", "number", "sampling"),
    [
        (grid(width=[4, 8], seed=range(3)), ("seed",), 3, 0),
        (grid(width=[4, 8], fold=range(5), seed=range(3)), ("data.fold",), 5, 1 / 4),
        (grid(width=[4, 8], data_seed=range(6), seed=range(2)), ("data.seed",), 6, 0.15 / 0.7),
        (grid(width=[4, 8], data_seed=range(6), fold=range(5)), ("data.seed",), 6, 0.15 / (0.85 * 0.8)),
    ],
    ids=["seeds", "folds", "data seeds", "nested"],
)
def test_blocks_are_what_is_independent(settings, keys, number, sampling):
    table = study(settings)
    found = blocks.independent_blocks(table, DATA)
    assert found.keys == keys
    assert found.shared
    assert found.sampling == pytest.approx(sampling)
    means = found.table("test/acc")
    assert means.shape == (2, number)
    first = (table.configuration == 0) & (found.of_run == found.of_run[0])
    assert means[0, found.of_run[0]] == pytest.approx(table.values["test/acc"][first].mean())


def test_data_seeds_of_generated_data_draw_new_samples():
    table = study(grid(width=[4, 8], data_seed=range(6)))
    for name, kind in DATA_SETS.items():
        assert (blocks.independent_blocks(table, DATA | {"data.name": {name}}).sampling == 0) == kind.generated


def test_folds_are_compared_as_nadeau_and_bengio_do(tmp_path):
    sweep = report_sweeps.write(
        tmp_path / "s", {"model.width": [32, 64], "data.fold": range(5), "seed": range(3)}, files=False
    )
    found = analyse(sweep)
    tests = found.blocks.table("test/acc")
    d = tests[found.best] - tests[1 - found.best]
    t = d.mean() / np.sqrt((1 / 5 + 1 / 4) * d.var(ddof=1))
    assert found.comparison.p[1 - found.best] == pytest.approx(2 * stats.t.sf(abs(t), 4))
    assert found.comparison.method == "studentized range"
    assert any("Nadeau & Bengio 2003" in sentence for sentence in method(found))
    own = found.ranking.estimate(found.best, "test/acc")
    assert own.half == pytest.approx(stats.t.ppf(0.975, 4) * np.sqrt((1 / 5 + 1 / 4) * tests[found.best].var(ddof=1)))


def test_configurations_on_other_folds_are_not_ranked_without_a_word(tmp_path):
    settings = [one for one in grid(width=[32, 64], fold=range(5)) if one != {"model.width": 64, "data.fold": 4}]
    found = headline(analyse(report_sweeps.write(tmp_path / "s", settings, files=False)))
    assert any("not every configuration has the same folds" in sentence for sentence in found)


def test_diverged_runs_count_as_the_worst_where_asked_for(tmp_path):
    sweep = report_sweeps.write(
        tmp_path / "s",
        {"model.width": [32, 64], "seed": range(10)},
        status=lambda number, s: "diverged" if s["model.width"] == 64 and s["seed"] < 3 else "ok",
        files=False,
    )
    last, worst = (analyse_table(*load_sweep.read(sweep), diverged=how) for how in ("last", "worst"))
    wide = next(c for c in range(2) if "64" in last.study.describe(c))
    assert last.ranking.order[-1] == wide
    assert "One other configuration has diverged runs, width=64 30% of its runs." in headline(last)
    assert worst.ranking.means["val/loss"][wide] > last.ranking.means["val/loss"][wide]
    assert (last.ranking.finished[wide], worst.ranking.finished[wide]) == (7, 10)
    values = worst.blocks.table("val/acc")[wide]
    assert values[:3] == pytest.approx(np.nanmin(last.blocks.table("val/acc")))
    assert last.counts["diverged"] == worst.counts["diverged"] == 3
    assert run_script("report.py", [str(sweep), "--diverged", "worst"]).code == 0


@pytest.mark.parametrize("margin", ["0", "nan", "wide"])
def test_a_margin_that_is_no_positive_number_is_refused(margin, tmp_path):
    outcome = run_script("report.py", [str(tmp_path), "--margin", margin])
    assert outcome.code == 2
    assert "is no positive number" in outcome.err


def test_the_command_for_further_seeds_trains_just_these_and_the_report_has_all(train, here):
    base = "-m name=s record=table trainer.max_epochs=1 model.depth=1,2 model.width=3,4 seed=0,1,2"
    assert train(base).code == 0
    found = analyse(here / "multirun/s")
    command = comparison_sentences.further_command(found, (0, 1), 2)
    words = shlex.split(command)
    assert words[words.index("-m") :] == [
        *["-m", "name=s", "record=table", "trainer.max_epochs=1", "model.depth=1", "model.width=3,4", "seed=range(3,5)"]
    ]
    assert train(" ".join(words[words.index("-m") :])).code == 0
    later = analyse(here / "multirun/s")
    assert later.study.num_runs == 16
    assert sorted(later.ranking.finished) == [3, 3, 5, 5]
    assert later.sources.unlisted == 12
    unlisted = [name for name in later.study.names if "seed=3" not in name and "seed=4" not in name]
    assert unlisted == sorted(unlisted)
    assert " && " in comparison_sentences.further_command(found, (0, 3), 2)


def test_sweeps_side_by_side_are_one_family(tmp_path):
    sweeps = [
        report_sweeps.write(tmp_path / "one", {"model.width": [16, 32], "seed": range(8)}, files=False),
        report_sweeps.write(tmp_path / "two", {"model.width": [32, 64], "seed": range(8, 16)}, files=False, random=1),
    ]
    joined = analyse_table(*joined_sweeps.join([load_sweep.read(sweep) for sweep in sweeps], ["one", "two"]))
    whole = report_sweeps.write(tmp_path / "whole", {"model.width": [16, 32, 64], "seed": range(16)}, files=False)
    assert joined.study.num_configurations == analyse(whole).study.num_configurations == 3
    assert sorted(joined.ranking.runs) == [8, 8, 16]
    assert joined.comparison.adjusted.shape == (3,)
    outcome = run_script("report.py", [*map(str, sweeps), "--out", str(tmp_path / "both")])
    assert outcome.code == 0, outcome.err
    page = (tmp_path / "both/index.html").read_text(encoding="utf-8")
    assert "All 3 configurations of all sweeps are one family" in page
    assert re.search("Of the 2 others", page)


def test_a_best_run_of_other_folds_is_named_with_a_warning(tmp_path):
    sweep = report_sweeps.write(tmp_path / "s", {"model.width": [32, 64], "data.fold": range(2)})
    for run in sweep.glob("*/result.json"):
        (run.parent / "checkpoints").mkdir()
        (run.parent / "checkpoints/best.ckpt").touch()
    outcome = run_script("evaluate.py", [str(sweep)])
    assert outcome.code == 2
    assert "the best by validation is" in outcome.line
    assert "(of runs with other validation samples, by data.fold)" in outcome.line


@pytest.mark.parametrize("seeds", [3, 10])
def test_the_first_five_sentences_answer_what_is_asked(seeds, tmp_path):
    sweep = report_sweeps.write(tmp_path / "multirun/s", report_sweeps.GRID | {"seed": range(seeds)}, files=False)
    best, score, sure, cheaper, further = headline(analyse(sweep))[:5]
    assert best.startswith("Best by validation loss: ")
    assert score.startswith("Test accuracy ")
    assert re.match(
        r"Of the 26 others \d+ (?:is|are) worse on test data \(family-wise 5 %\), \d+ equivalent within 0.005", sure
    )
    assert re.search("smaller|smallest", cheaper)
    assert further.startswith(("Next: ", "Nothing is undecided"))
    if "train.py" in further:
        assert "-m name=s" in further
