"""`scripts/report.py`: any sweep becomes a page that says what its numbers say, and that is safe to open."""

import base64
import csv
import hashlib
import html
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import report_sweeps
from conftest import SCRIPTS, run_script
from matplotlib.figure import Figure
from report_sweeps import GRID
from scipy import stats

from mlpexp import load_results
from mlpexp.analysis.run_files import command, curves, layers
from mlpexp.analysis.sweep_table import from_records
from mlpexp.nn import chance_level
from mlpexp.report import report_figure, tensorboard_report
from mlpexp.store import csv_tables, file_names, results_table, run_directory, sweep_manifest
from mlpexp.store.sweep_manifest import Manifest

VOID = {"meta", "br", "link", "input", "img", "hr"}
HOSTILE = "<script>alert(1)</script> & \"q\" 🎉 'x'"


class Outline(HTMLParser):
    """Every tag closed in order; texts and attributes for looking at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made but not drawn: test_report_figures.py looks at those of all kinds of sweeps."""
    monkeypatch.setattr("mlpexp.report.build_report.png", lambda figure, dpi: (b"", 0, 0))
    monkeypatch.setattr("mlpexp.report.build_report.svg", lambda figure, name, words: "<svg></svg>")


def report(*arguments):
    """The page's outline after a report that went well."""
    outcome = run_script("report.py", [str(argument) for argument in arguments])
    assert (outcome.code, outcome.err) == (0, "")
    return Outline(Path(outcome.out.splitlines()[-1].strip()).read_text(encoding="utf-8"))


def refused(*arguments):
    outcome = run_script("report.py", [str(argument) for argument in arguments])
    assert outcome.code == 2
    return outcome.line


def read(path):
    with path.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """1,080 runs, a dozen of them diverged, two failed; reported once."""
    directory = report_sweeps.write(
        tmp_path_factory.mktemp("sweeps") / "thousand",
        GRID | {"seed": range(40)},
        status=lambda number, s: (
            "failed"
            if number in (7, 500)
            else "diverged"
            if (s["model.depth"], s["model.activation"]) == (3, "tanh") and s["seed"] % 13 == 0
            else "ok"
        ),
    )
    return directory, report(directory)


def test_the_headline_is_what_scipy_says_about_results_csv(thousand):
    directory, page = thousand
    groups: dict[tuple, dict[int, dict]] = {}
    for row in load_results(directory):
        if row["status"] == "ok":
            key = (row["model.depth"], row["model.width"], row["model.activation"])
            groups.setdefault(key, {})[row["seed"]] = row
    means = {key: np.mean([row["val/loss"] for row in runs.values()]) for key, runs in groups.items()}
    first, second = sorted(means, key=means.get)[:2]
    depth, width, activation = first
    assert f"Best by validation loss: depth={depth}, width={width}, activation={activation}." in page.text
    test = np.array([row["test/acc"] for row in groups[first].values()])
    half = stats.t.ppf(0.975, len(test) - 1) * stats.sem(test)
    scores = []
    for seed in range(40):
        means = {
            key: np.mean([row["val/loss"] for other, row in runs.items() if other != seed])
            for key, runs in groups.items()
            if seed in runs
        }
        scores.append(groups[min(means, key=means.get)][seed]["test/acc"])
    assert f"Test accuracy {np.mean(scores):.4f} (95% interval over {len(test)} seeds [" in page.text
    assert f"corrected for the choice of the best; uncorrected {test.mean():.4f} ± {half:.4f})" in page.text
    difference = test.mean() - np.mean([row["test/acc"] for row in groups[second].values()])
    assert f"runner-up, depth={second[0]}, width={second[1]}, activation={second[2]}, is " in page.text
    said = re.search(r"runner-up, .*?difference ([+-][\d.]+) ± ([\d.]+), p", page.text)
    assert said
    assert float(said[1]) == pytest.approx(difference, abs=2e-4)  # adjusted for the seeds that one of them lacks
    one, other = ([groups[key][seed]["test/acc"] for seed in sorted(groups[first].keys() & groups[second].keys())]
                  for key in (first, second))  # fmt: skip
    interval = stats.ttest_rel(one, other).confidence_interval()
    assert float(said[2]) == pytest.approx((interval.high - interval.low) / 2, rel=0.25)  # variances are moderated
    assert "sign flips of whole seeds" in page.text


def test_a_thousand_runs_make_a_small_page_with_every_figure_beside_it(thousand):
    directory, page = thousand
    made = directory / "report"
    assert (made / "index.html").stat().st_size < 2_000_000
    names = {"best", "heat", "effects", "variance", "interactions", "cost", "curves"}
    assert {path.stem for path in (made / "figures").glob("*.png")} == names
    assert {path.stem for path in (made / "figures").glob("*.svg")} == names
    assert page.tags.count("svg") == len(names)
    links = [value for name, value in page.attributes if name == "href" and value and "/" in value]
    assert all((made / link).is_file() for link in links)
    files = {f"{path.parent.name}/{path.name}" for path in made.glob("*/*")}
    assert files == set(links)


def test_what_went_wrong_is_counted_and_placed(thousand):
    directory, page = thousand
    assert "1,080 runs of 27 configurations: 12 diverged, 2 failed" in page.text
    table = {(row["key"], row["level"]): row for row in read(directory / "report/tables/trouble.csv")}
    assert table["model.depth", "3"]["diverged"] == "12"
    assert table["model.depth", "1"]["diverged"] == "0"
    assert table["model.activation", "tanh"]["diverged"] == "12"
    assert sum(int(table["model.width", str(w)]["failed"]) for w in (32, 64, 128)) == 2


def test_the_ranking_has_every_configuration_and_every_run_its_command(thousand):
    directory, _ = thousand
    ranking = read(directory / "report/tables/ranking.csv")
    assert len(ranking) == 27
    clean = [float(row["val/loss"]) for row in ranking if row["diverged"] == "0"]
    assert clean == sorted(clean)
    assert [row["diverged"] for row in ranking[-3:]] == ["4", "4", "4"]  # a mean over survivors does not count
    every = read(directory / "report/tables/runs.csv")
    assert len(every) == 1080
    row = every[123]
    words = [f"{key}={row[key]}" for key in (*GRID, "seed")]
    assert row["command"] == f"python scripts/train.py {' '.join(words)}"


def test_tables_hold_the_numbers_at_full_precision(thousand):
    directory, _ = thousand
    records = [row for row in load_results(directory) if row["status"] == "ok"]
    effects = read(directory / "report/tables/effects.csv")
    row = next(r for r in effects if (r["key"], r["level"], r["part"]) == ("model.width", "64", "test"))
    cells: dict[tuple, list[float]] = {}
    for record in records:
        if record["model.width"] == 64:
            cells.setdefault((record["model.depth"], record["model.activation"]), []).append(record["test/acc"])
    assert int(row["runs"]) == sum(map(len, cells.values()))
    assert float(row["mean"]) == pytest.approx(np.mean([np.mean(cell) for cell in cells.values()]), abs=2e-4)
    assert float(row["low"]) < float(row["mean"]) < float(row["high"])
    shares = [float(r["share"]) for r in read(directory / "report/tables/variance.csv")]
    assert sum(shares) == pytest.approx(1, abs=0.01)


def test_the_page_says_how_it_was_worked_out_and_where_from(thousand):
    _, page = thousand
    for words in ("No test number has a part", "Westfall & Young 1993", "two one-sided tests", "torch 2.13.0"):
        assert words in page.text
    assert "0 to 39" in page.text
    assert "09f66e6d" * 8 in page.text


def test_the_page_is_well_formed_and_can_neither_run_nor_load_anything(thousand):
    directory, page = thousand
    text = (directory / "report/index.html").read_text(encoding="utf-8")
    assert "script" not in page.tags
    assert not {"img", "iframe", "link", "object", "embed", "base", "form", "image"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert "style" not in names
    assert not any(name.startswith("on") for name in names)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert ("content", policy) in page.attributes
    assert "url(" not in style
    assert "@import" not in style
    assert set(re.findall(r"https?://[^\"' ]*", text)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    } & set(re.findall(r"https?://[^\"' ]*", text))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for name, value in page.attributes if name == "href" and value and value.startswith("#")}
    assert targets <= set(ids)


def test_every_figure_says_what_it_shows_to_those_who_cannot_see_it(thousand):
    _, page = thousand
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert sum("Mean over runs." in label for label in labels) == 1


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser")
def test_a_browser_shows_the_numbers_of_results_csv(thousand, tmp_path):
    directory, _ = thousand
    best = read(directory / "report/tables/ranking.csv")[0]
    quiet = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    words = [*quiet.split(), "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}"]
    done = subprocess.run(
        ["chromium", *words, "--dump-dom", (directory / "report/index.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Refused to apply" not in done.stderr
    assert f"{float(best['test/acc']):.4f} ± {float(best['test/acc ±']):.4f}" in html.unescape(done.stdout)


SMALL = {"model.depth": [1, 2], "model.width": [32, 64], "seed": range(3)}


def failed(number, settings):
    return "failed"


@pytest.mark.parametrize(
    ("grid", "options", "words"),
    [
        ([], {}, "No run has ended yet"),
        ([{"seed": 0}], {}, "only one configuration"),
        ({"seed": range(4)}, {}, "(95% interval over 4 seeds ["),
        ({"model.width": [32, 64]}, {}, "One run per configuration: no intervals and no comparison"),
        ({"optimizer.lr": [0.1, 0.2], "seed": range(4)}, {}, "The only other, lr=0.2, is undecided (difference "),
        ({"model.width": [32, 64], "data.fold": range(3)}, {}, "(95% interval over 3 folds ["),
        (SMALL, {"status": failed, "message": "RuntimeError: no"}, "All 12 runs failed"),
        (SMALL, {"status": lambda n, s: "diverged"}, "All 12 runs diverged"),
        (SMALL, {"status": lambda n, s: "ok" if n < 5 else "interrupted"}, "7 unfinished"),
        (SMALL, {"status": lambda n, s: "ok" if n < 5 else "missing"}, "5 runs of 2 configurations"),
        (
            SMALL,
            {"status": lambda n, s: "chance", "message": f"{chance_level.MARK}: 0.1"},
            "12 no better than guessing",
        ),
        (SMALL, {"test": False}, "There is no test part"),
        (SMALL, {"files": False}, "No run has a result.json"),
        ([{"model.width": w, "seed": 9 * w + i} for w in (32, 64) for i in range(4)], {}, "errors are Welch's"),
        ({"model.width": [16, "[64,32]", "[8,8,8]"], "seed": [0, 1]}, {}, "width by"),
    ],
    ids=["zero", "one", "seeds", "no seeds", "one key", "folds", "all failed", "all diverged", "unfinished", "partial",
         "guessing", "no test", "no files", "unshared seeds", "lists"],
)  # fmt: skip
def test_every_kind_of_sweep_has_a_report(grid, options, words, tmp_path, undrawn):
    if words == "width by":
        words = "width=[64,32]"
    page = report(report_sweeps.write(tmp_path / "sweep", grid, **options))
    assert words in page.text


def test_the_best_is_chosen_by_validation_though_the_test_disagrees(tmp_path, undrawn):
    sweep = report_sweeps.write(tmp_path / "s", {"model.width": [32, 64], "seed": range(5)}, files=False)
    text = (sweep / "results.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    for i, row in enumerate(rows):
        wide = row["model.width"] == "64"
        row["val/loss"], row["val/acc"] = ("0.1", "0.95") if wide else ("0.2", "0.90")
        row["test/acc"] = str((0.80 if wide else 0.99) + 0.001 * (i % 4))
    with (sweep / "results.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    page = report(sweep)
    assert "Best by validation loss: width=64." in page.text
    assert "The only other, width=32, is better (difference -0.1" in page.text


def test_the_metric_that_decides_and_the_one_that_is_shown_can_be_chosen(tmp_path, undrawn):
    sweep = report_sweeps.write(tmp_path / "s", SMALL)
    page = report(sweep, "--by", "val/acc", "--metric", "loss")
    assert "Best by validation accuracy" in page.text
    assert "Test loss" in page.text


def test_hostile_names_are_shown_and_never_obeyed(tmp_path):
    values = ["'<script>alert(2)</script>'", "'=cmd()'", "'+x'", "'🎉 a b'"]
    sweep = report_sweeps.write(
        tmp_path / HOSTILE.replace("/", "⁄"),
        {"+tag": values, "seed": range(2)},
        status=lambda number, s: "failed" if number == 1 else "ok",
        message="Error: <img src=x onerror=alert(1)>",
    )
    page = report(sweep)
    assert not {"script", "img"} & set(page.tags)
    assert HOSTILE.replace("/", "⁄") in page.text
    assert "tag=<script>alert(2)</script>" in page.text
    assert "Error: <img src=x onerror=alert(1)>" in page.text
    rows = read(sweep / "report/tables/ranking.csv")
    assert {row["tag"] for row in rows} == {"<script>alert(2)</script>", "'=cmd()", "'+x", "🎉 a b"}


def test_a_run_that_lies_outside_its_sweep_is_not_read(tmp_path):
    secret = report_sweeps.write(tmp_path / "secret", {"seed": [0]})
    (sweep := tmp_path / "sweep").mkdir()
    for name in ("../secret/seed=0", str(secret / "seed=0"), "", "a\0b"):
        assert command(sweep, name, [("seed", "0")]) == ("python scripts/train.py seed=0", False)


def test_a_command_is_typed_as_the_run_was_started(tmp_path):
    (tmp_path / "a/.hydra").mkdir(parents=True)
    (tmp_path / "a/.hydra/overrides.yaml").write_text("- model.width=[64,32]\n- '+x=''a b'''\n- \"k=\\u00e9\"\n")
    assert command(tmp_path, "a", []) == (
        """python scripts/train.py 'model.width=[64,32]' '+x='"'"'a b'"'"'' 'k=é'""",
        True,
    )


def test_damaged_files_of_a_run_are_left_out(tmp_path, undrawn):
    sweep = report_sweeps.write(tmp_path / "s", {"seed": range(3)}, layers=True)
    (sweep / "seed=0" / file_names.METRICS).write_text("epoch,train/loss\n0,zero\n")
    (sweep / "seed=1" / file_names.METRICS).write_bytes(b"")
    (sweep / "seed=0" / file_names.LAYERS).write_bytes(b"\xff\x00")
    (sweep / "seed=0" / file_names.RESULT).write_text("{")
    assert curves(sweep, ["seed=0", "seed=1", "seed=2"]).runs == 1
    assert layers(sweep, ["seed=0", "seed=1", "seed=2"])["gradient_norm"].shape == (2, 11, 3)
    assert "The result.json of 1 of 3 runs is damaged, or its checksum is wrong (seed=0)." in report(sweep).text


def test_layers_are_drawn_where_they_were_recorded(tmp_path, undrawn):
    sweep = report_sweeps.write(tmp_path / "s", SMALL, layers=True)
    page = report(sweep)
    assert "Gradient norm by layer" in page.text
    assert "Share of saturated units by layer" in page.text
    rows = read(sweep / "report/tables/gradients.csv")
    assert {row["layer"] for row in rows} == {"0", "1", "2"}
    assert {row["epoch"] for row in rows} == {str(epoch) for epoch in range(-1, 10)}


def test_a_sweep_that_was_killed_before_its_table_is_read_from_its_runs(tmp_path, undrawn):
    sweep = report_sweeps.write(tmp_path / "s", SMALL)
    before = report(sweep).text
    (sweep / "results.csv").unlink()
    assert report(sweep).text.split("12 runs")[1] == before.split("12 runs")[1]


def test_sweeps_are_compared_side_by_side(tmp_path, undrawn):
    one = report_sweeps.write(tmp_path / "one", SMALL, noise=0.001)
    deeper = SMALL | {"model.depth": [3, 4]}
    two = report_sweeps.write(tmp_path / "two", deeper, noise=0.001, truth=lambda s: 0.8, random=1)
    none = report_sweeps.write(tmp_path / "none", [])
    page = report(one, two, none, "--out", tmp_path / "both")
    assert "Side by side" in page.text
    assert "Best by validation loss: one, with depth=2, width=64 (test accuracy " in page.text
    assert "8 configurations of all sweeps are one family" in page.text
    other = report_sweeps.write(tmp_path / "other", SMALL, digest="ab" * 32)
    text = report(one, other, "--out", tmp_path / "apart").text
    assert "not run on the same data; they differ in the data's bytes" in text
    assert "so no best of all sweeps is named" in text
    assert [row["sweep"] for row in read(tmp_path / "both/tables/sweeps.csv")] == ["one", "two", "none"]
    assert {"1-heat.png", "2-heat.png", "sweeps.png"} <= {path.name for path in (tmp_path / "both/figures").iterdir()}


def test_figures_of_an_earlier_report_do_not_stay(tmp_path, undrawn):
    sweep = report_sweeps.write(tmp_path / "s", [{"seed": 0}])
    report_sweeps.write(sweep, {"seed": [0, 1], "model.width": [8, 16]}, files=False)
    report(sweep)
    assert (sweep / "report/figures/best.png").exists()
    mine = ["figures/mine.png", "figures/mine.svg", "tables/mine.csv", "figures/mine.txt", "events.out.tfevents.mine"]
    for name in mine:
        (sweep / "report" / name).write_text("mine")
    report_sweeps.write(sweep, [{"seed": 0}], files=False)
    report(sweep)
    assert not (sweep / "report/figures/best.png").exists()
    assert [(sweep / "report" / name).read_text() for name in mine] == ["mine"] * len(mine)
    assert len(list((sweep / "report").glob("events.out.tfevents.1*"))) == 1


def test_a_report_is_not_written_into_a_directory_of_others(tmp_path, undrawn):
    sweep = report_sweeps.write(tmp_path / "s", [{"seed": 0}])
    for name in ("mine/figures/a.png", "mine/tables/b.csv", "mine/index.html", "mine/events.out.tfevents.1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    assert "holds no report of mlpexp; choose another directory with --out DIR" in refused(
        sweep, "--out", tmp_path / "mine"
    )
    assert all(path.read_text() == "mine" for path in (tmp_path / "mine").rglob("*") if path.is_file())
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    assert "is a symbolic link" in refused(sweep, "--out", tmp_path / "link")


def test_a_report_of_an_earlier_version_is_replaced_but_not_what_lies_beside_it(tmp_path, undrawn):
    sweep = report_sweeps.write(tmp_path / "s", [{"seed": 0}])
    report(sweep)
    made = sweep / "report"
    (made / ".mlpexp-files.json").unlink()
    [events] = made.glob("events.out.tfevents.*")
    for name in ("figures/2-heat.png", "figures/mine.png", "tables/mine.csv", "events.out.tfevents.9.mine"):
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_text("mine")
    report(sweep)
    assert not (made / "figures/2-heat.png").exists()
    assert not events.exists()
    assert (made / "figures/mine.png").exists()
    assert (made / "tables/mine.csv").exists()
    assert (made / "events.out.tfevents.9.mine").exists()


def test_a_wrong_path_is_answered_in_one_line(tmp_path):
    sweep = report_sweeps.write(tmp_path / "sweep", {"seed": [0]})
    (tmp_path / "empty").mkdir()
    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "holds no results.csv" in refused(tmp_path / "empty")
    assert f"did you mean {sweep}?" in refused(tmp_path)
    assert "is a file" in refused(sweep / "results.csv")
    assert "is a file" in refused(sweep, "--out", sweep / "results.csv")
    (sweep / "results.csv").unlink()
    os.mkfifo(sweep / "results.csv")
    assert "results.csv is no regular file: it is a FIFO" in refused(sweep)


@pytest.mark.parametrize(
    "content", [b"a,b\n1,2\n", b"\xff\xfe", b"run,name\n1,2,3,4\n"], ids=["columns", "bytes", "ragged"]
)
def test_a_damaged_table_is_named(content, tmp_path):
    sweep = report_sweeps.write(tmp_path / "sweep", {"seed": [0]})
    (sweep / "results.csv").write_bytes(content)
    assert "results.csv is damaged" in refused(sweep)


def test_wrong_options_are_argparses(capsys, tmp_path):
    assert run_script("report.py", ["--metric", "f1", str(tmp_path)]).code == 2
    assert run_script("report.py", []).code == 2


def test_a_report_needs_no_torch_and_survives_a_closed_terminal(tmp_path):
    sweep = report_sweeps.write(tmp_path / "s", [{"seed": 0}])
    code = (
        "import sys, runpy; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0].rpartition('/')[0])\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print([m for m in ('torch', 'lightning', 'pandas', 'sklearn') if m in sys.modules], file=sys.stderr)"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(SCRIPTS / "report.py"), str(sweep)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout
    assert started.stderr
    started.stdout.close()
    said = started.stderr.read()
    started.stderr.close()
    assert started.wait() == 0
    assert said == "[]\n"


def test_swept_keys_are_told_apart_by_kind():
    rows = [
        {"name": str(i), "status": "ok", "model.depth": d, "model.width": w, "optimizer.name": o, "seed": s}
        for i, (d, w, o, s) in enumerate([(1, 8, "sgd", 0), (2, "[8,4]", "adam", 0), (10, 16, None, 1)])
    ]
    study = from_records(Path(), rows)
    kinds = {key.label: (key.kind, key.levels) for key in study.factors}
    assert kinds == {
        "depth": ("numeric", ["1", "2", "10"]),
        "width": ("ordered", ["8", "16", "[8,4]"]),
        "optimizer": ("categorical", ["sgd", "adam", "default"]),
    }
    assert [key.name for key in study.seeds] == ["seed"]


def test_keys_that_end_alike_keep_their_full_names():
    rows = [{"name": "a", "status": "ok", "data.seed": 1, "seed": 2, "a.rate": 1, "b.rate": 2}]
    study = from_records(Path(), rows)
    assert [key.label for key in study.factors] == ["a.rate", "b.rate"]
    assert [key.label for key in study.seeds] == ["data.seed", "seed"]


def test_a_seed_that_changes_nothing_is_no_repetition(train, here, undrawn):
    ended = train("-m name=s data.split=none data.seed=range(3) model.width=4,8 trainer.max_epochs=1")
    assert ended.code == 0
    assert "best of 2 configurations by val/loss\n" in ended.out
    assert "±" not in ended.out
    sentence = "4 of 6 runs are the same training as another run: different values of data.seed change nothing."
    assert sentence in ended.out
    text = report("multirun/s").text
    assert sentence in text
    assert "4 of 6 runs are the same training as another run: different values of data.seed change nothing" in text
    assert "One run per configuration: no intervals and no comparison" in text
    assert "±" not in text.split("Failed and diverged runs")[0].split("}")[-1]
    rows = read(here / "multirun/s/report/tables/runs.csv")
    assert [row["remark"].startswith("the same training as") for row in rows] == [False, False, True, True, True, True]


def test_spellings_of_one_value_and_copied_runs_count_once(train, here, undrawn):
    assert train("-m name=s model.width=4,[4],8 seed=0,1 trainer.max_epochs=1").code == 0
    sweep = here / "multirun/s"
    (sweep / "report").exists()
    before = report(sweep).text
    assert "width=[4] is the same training as width=4; only the latter is ranked" in before
    first = next(path for path in sorted(sweep.iterdir()) if path.is_dir() and "width=8" in path.name)
    shutil.copytree(first, sweep / "a copy")
    (sweep / "results.csv").unlink()
    after = report(sweep).text
    assert "3 of 7 runs are the same training as another run" in after
    assert re.findall(r"Test accuracy .*? ± ", before) == re.findall(r"Test accuracy .*? ± ", after)
    [row] = [row for row in read(sweep / "report/tables/ranking.csv") if row["model.width"] == "8"]
    assert (row["runs"], row["finished"]) == ("3", "2")


def test_equal_metrics_of_different_seeds_by_accident_are_two_runs(tmp_path, undrawn):
    rows = [
        {"name": str(i), "status": "ok", "seed": i, **dict.fromkeys(("train/loss", "val/loss", "val/acc"), value)}
        for i, value in enumerate((0.5, 0.5, 0.6))
    ]
    assert from_records(Path(), rows).counted.tolist() == [True, True, True]
    assert from_records(Path(), rows[:2]).counted.tolist() == [True, False]  # the seed changes nothing


def test_texts_stay_texts_whatever_they_look_like(tmp_path, undrawn):
    targets = ["1", "01", "1_0", "1e0"]
    sweep = report_sweeps.write(tmp_path / "s", {"data.target": targets, "seed": range(2)})
    assert [row["data.target"] for row in load_results(sweep)] == [target for target in targets for _ in range(2)]
    assert {row["seed"] for row in load_results(sweep)} == {0, 1}
    page = report(sweep)
    assert "8 runs of 4 configurations" in page.text
    assert {row["data.target"] for row in read(sweep / "report/tables/ranking.csv")} == set(targets)
    assert "Careful: configurations with another data.target are measured on other data" in page.text


@pytest.mark.thorough(sample=3)
@pytest.mark.parametrize(
    ("key", "there", "here", "differs"),
    [
        ("data.target", "a", "b", "data.target (a; b)"),
        ("data.seed", 0, 1, "data.seed (0; 1)"),
        ("data.val_fraction", 0.15, 0.2, "data.val_fraction (0.15; 0.2)"),
        ("data.label_noise", 0.0, 0.3, "data.label_noise (0.0; 0.3)"),
        ("data.batch_size", 16, 32, None),
        ("optimizer.lr", 0.1, 0.2, None),
    ],
)
def test_sweeps_are_on_the_same_data_only_if_all_that_decides_on_it_is_equal(
    key, there, here, differs, tmp_path, undrawn
):
    sweeps = [report_sweeps.write(tmp_path / name, SMALL) for name in ("one", "two")]
    for sweep, value in zip(sweeps, (there, here), strict=True):
        sweep_manifest.write(sweep, Manifest(constants={key: value}))
    text = report(*sweeps, "--out", tmp_path / "both").text
    if differs:
        assert f"not run on the same data; they differ in {differs}. Their numbers cannot be compared" in text
    else:
        assert "not run on the same data" not in text


def test_a_table_that_differs_from_the_runs_is_corrected_and_said(tmp_path, undrawn):
    sweep = report_sweeps.write(tmp_path / "s", SMALL)
    before = read_ranking(sweep)
    rows = read(sweep / "results.csv")
    rows[0]["val/loss"], rows[1]["model.depth"], rows[2]["status"] = "0.0001", "7", "failed"
    with (sweep / "results.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    text = report(sweep).text
    assert "3 of 12 rows of results.csv differ from the runs' records" in text
    assert read_ranking(sweep) == before


def read_ranking(sweep):
    report(sweep)
    return (sweep / "report/tables/ranking.csv").read_text()


def test_what_was_not_verified_is_said(tmp_path, undrawn):
    sweep = report_sweeps.write(tmp_path / "s", SMALL)
    swapped = [sweep / name / file_names.METRICS for name in sorted(p.name for p in sweep.iterdir() if p.is_dir())[:2]]
    one, other = (path.read_text() for path in swapped)
    swapped[0].write_text(other)
    swapped[1].write_text(one)
    text = report(sweep).text
    assert "12 of 12 runs are those of the runs' own result.json, whose checksums hold" in text
    assert "2 runs are left out: their metrics.csv is missing or not what the run wrote" in text
    shutil.rmtree(swapped[0].parent)
    assert "The numbers of 1 of 12 runs are in results.csv only and were not verified" in report(sweep).text


def test_a_sweep_in_a_table_is_reported_without_its_results_csv(train, here, undrawn):
    assert train("-m name=t record=table seed=0,1 model.width=4,8 trainer.max_epochs=1").code == 0
    with_table = report("multirun/t").text
    (here / "multirun/t/results.csv").unlink()
    assert report("multirun/t").text.split("4 runs")[1] == with_table.split("4 runs")[1]


def test_runs_on_other_data_sets_are_said_to_be_measured_on_other_data(tmp_path, undrawn):
    sweep = report_sweeps.write(tmp_path / "s", {"data": ["iris", "wine"], "seed": range(2)})
    assert "Careful: configurations with another data are measured on other data" in report(sweep).text
    other = report_sweeps.write(tmp_path / "t", {"data": ["iris", "digits"], "seed": range(2)})
    assert (
        "they differ in data.name (iris, wine; digits, iris)" in report(sweep, other, "--out", tmp_path / "both").text
    )


def test_single_runs_are_reported_together(train, here, undrawn):
    for name, width in (("A", 8), ("B", 16)):
        assert (
            train(f"hydra.run.dir=outputs/{name} model.width={width} trainer.max_epochs=1 tracking.figures=false").code
            == 0
        )
    page = report("outputs/A", "outputs/B")
    assert "2 runs of 2 configurations" in page.text
    assert {row["model.width"] for row in read(here / "outputs/A/report/tables/ranking.csv")} == {"8", "16"}
    assert "1 run of 1 configuration" in report("outputs/B").text
    assert run_directory.read_result(here / "outputs/A").status == "ok"


def test_a_run_may_be_called_by_a_number(tmp_path, undrawn):
    sweep = report_sweeps.write(tmp_path / "s", {"seed": range(2)})
    for number in range(2):
        (sweep / f"seed={number}").rename(sweep / str(number))
    (sweep / "results.csv").write_text((sweep / "results.csv").read_text().replace(",seed=", ","))
    page = report(sweep)
    assert "2 of 2 runs are those of the runs' own result.json" in page.text
    assert [row["name"] for row in read(sweep / "report/tables/runs.csv")] == ["0", "1"]
    assert "Learning curves" in page.text


@pytest.mark.parametrize(
    "text", ["=cmd|' /C calc'!A0", "+x", "-x", "@x", "'=x", "\tx", "''-x", "-1", "1e-3", "'x", "a=b", ""]
)
def test_cells_that_a_spreadsheet_would_evaluate_are_defused_and_read_back(text, tmp_path):
    table = csv_tables.csv_text(["name", "n"], [[text, 1]])
    [[cell, _]] = csv.reader(table.splitlines()[1:])
    assert not cell.startswith(("=", "+", "@", "\t"))
    assert csv_tables.original(cell) == text
    rows = [(0, "a", [f"+x={text!r}"], None, text), (1, "b", ["+x=b"], None, "")]
    (tmp_path / "results.csv").write_text("".join(results_table.table_parts(rows)), encoding="utf-8")
    assert load_results(tmp_path)[0]["message"] == (text or None)


def test_commands_are_code_in_the_text_of_tensorboard():
    found = tensorboard_report.answer(
        ["Best: a.", "Next:\npython train.py -m seed=1"], "6 runs", "python train.py seed=0"
    )
    code = [line.strip() for line in found.splitlines() if line.startswith("    ")]
    assert code == ["python train.py -m seed=1", "python train.py seed=0"]
    assert found.startswith("**Best: a") and "6 runs" in found


def test_a_figure_is_added_by_one_registration(tmp_path, undrawn, monkeypatch):
    monkeypatch.setattr(report_figure.FIGURES, "_entries", dict(report_figure.FIGURES._entries))

    def draw(analysis):
        figure = Figure()
        return report_figure.ReportFigure(title="Mine", caption=f"{analysis.study.num_runs} runs.", figure=figure)

    report_figure.FIGURES.register("mine", report_figure.Entry(5, draw))
    sweep = report_sweeps.write(tmp_path / "s", SMALL)
    assert "Mine" in report(sweep).text
    assert (sweep / "report/figures/mine.svg").is_file()
