"""Every target of the Makefile, run by make itself.

Its programs are replaced by one that records the command, as the shell passes it on. The commands of training and of
reports are then run in a small form in this process, and their results looked at.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import run_script

ROOT = Path(__file__).parents[1]
SMALL = ["trainer.max_epochs=1", "tracking.figures=false", "tracking.diagnostics=false"]
PROGRAMS = ("python", "ruff", "mypy", "tensorboard")
RECORDER = """#!{python}
import json, os, sys
variables = {{key: value for key, value in os.environ.items() if key.startswith(("OMP_", "MLPEXP_"))}}
with open({log!r}, "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:], variables]) + "\\n")
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def targets() -> list[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    declared = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert declared is not None
    return declared[1].split()


def make(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "ARGS", "MLPEXP", "OMP"))
    }
    return subprocess.run(
        ["make", "-C", str(ROOT), *words], capture_output=True, text=True, check=False, env=environment | variables
    )


@pytest.fixture
def recorded(here: Path):
    """`recorded("train", "ARGS=…")`: what make said and the programs that it started: name, words, environment."""
    log = here / "log"
    folder = here / "bin"
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).write_text(RECORDER.format(python=sys.executable, log=str(log)))
        (folder / name).chmod(0o755)

    def call(*words: str) -> tuple[str, list[list]]:
        log.write_text("")
        ended = make(*words, f"BIN={folder}", f"READY={here / 'ready'}", "--old-file", str(here / "ready"))
        assert ended.returncode == 0, ended.stderr
        return ended.stdout, [json.loads(line) for line in log.read_text().splitlines()]

    return call


def test_help_lists_every_target_and_every_target_has_a_test():
    ended = make("help")
    listed = re.findall(r"^make ([a-z-]+) +\S", ended.stdout, re.MULTILINE)
    assert (listed, make().stdout) == (targets(), ended.stdout)
    tested = set(re.findall(r'(?:recorded|make)\("([a-z-]+)"', Path(__file__).read_text(encoding="utf-8")))
    assert tested == set(targets())


def test_setup_installs_what_the_project_needs_and_on_request_without_cuda(recorded, here):
    (here / "ready").unlink(missing_ok=True)
    ready, place = here / "ready", ["-C", str(ROOT), f"BIN={here / 'bin'}", f"READY={here / 'ready'}"]

    def installs(*words: str) -> tuple[str, list[str]]:
        ready.unlink(missing_ok=True)
        (here / "log").write_text("")
        said = subprocess.check_output(["make", "setup", *place, f"PYTHON={sys.executable}", *words], text=True)
        assert ready.exists()
        (command,) = [json.loads(line) for line in (here / "log").read_text().splitlines()]
        return said, command[1]

    wanted = ["--constraint", "constraints.txt", "--editable", ".[dev]"]
    said, words = installs()
    assert words == ["-m", "pip", "--disable-pip-version-check", "install", "-qq", *wanted]
    assert ("make setup CPU=1" in said) == (sys.platform == "linux")
    said, words = installs("CPU=1")
    assert words[5:] == ["--extra-index-url", "https://download.pytorch.org/whl/cpu", *wanted]
    assert "CUDA" not in said
    (command,) = recorded("setup")[1:]
    assert command == []  # it is there


def test_setup_names_the_python_that_it_needs(here):
    old = here / "python"
    old.write_text("#!/bin/sh\necho 'mlpexp needs Python 3.11 or later: make PYTHON=python3.11' >&2\nexit 1\n")
    old.chmod(0o755)
    ended = make("setup", f"PYTHON={old}", f"READY={here / 'ready'}")
    assert ended.returncode == 2
    assert "make PYTHON=python3.11" in ended.stderr
    assert not (here / "ready").exists()


def test_train_trains_one_network(recorded, here):
    _, [(program, words, _)] = recorded("train", "ARGS=model.width=[8,4] seed=1")
    assert (program, words) == ("python", ["scripts/train.py", "model.width=[8,4]", "seed=1"])
    assert recorded("train")[1] == [["python", ["scripts/train.py"], {}]]
    ended = run_script("train.py", [*words[1:], *SMALL])
    assert ended.code == 0, ended.err
    (result,) = here.glob("outputs/*/*/result.json")
    assert json.loads(result.read_text())["status"] in ("ok", "chance")


def test_sweep_trains_a_grid(recorded, here):
    _, [(program, words, _)] = recorded("sweep")
    assert (program, words[0]) == ("python", "scripts/train.py")
    ended = run_script("train.py", [*words[1:], "name=s", *SMALL])
    assert ended.code == 0, ended.err
    with (here / "multirun/s/results.csv").open() as file:
        runs = [(row["model.depth"], row["model.width"], row["seed"]) for row in csv.DictReader(file)]
    assert runs == [(depth, width, seed) for depth in "12" for width in ("32", "64") for seed in "012"]
    _, [(_, words, _)] = recorded("sweep", "ARGS=model.width=4,8 'seed=range(2)'")
    assert words == ["scripts/train.py", "-m", "model.width=4,8", "seed=range(2)"]

    _, [(program, words, _)] = recorded("report", "ARGS=multirun/s")
    assert (program, words) == ("python", ["scripts/report.py", "multirun/s"])
    ended = run_script("report.py", words[1:])
    assert ended.code == 0, ended.err
    assert (here / "multirun/s/report/index.html").is_file()


def test_report_says_what_it_needs(here):
    ended = make("report", f"READY={here}")
    assert ended.returncode == 2
    assert ended.stderr.startswith("make report needs a sweep, e.g. make report ARGS=multirun/NAME\n")


def test_tensorboard_opens_the_runs(recorded):
    assert recorded("tensorboard")[1] == [["tensorboard", ["--logdir", "outputs"], {}]]
    assert recorded("tensorboard", "LOGDIR=multirun/s")[1] == [["tensorboard", ["--logdir", "multirun/s"], {}]]


def test_test_says_how_long_it_takes_runs_some_on_request_and_says_why_others_are_skipped(recorded, here):
    said, [(_, words, environment)] = recorded("test")
    assert "minutes" in said
    assert words == ["-m", "pytest", "-rs", "-n", "2", "--dist", "worksteal"]
    assert environment == {"OMP_NUM_THREADS": "1"}
    (here / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.skip(reason='the reason')\ndef test_a(): pass\n"
        "@pytest.mark.slow\ndef test_b(): pass\n"
        "def test_c(): pass\n"
    )
    (here / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")  # without the project's, and its heavy imports
    bin_folder = Path(sys.executable).parent
    for target, passed in (("test", 2), ("test-quick", 1)):
        ended = make(
            *(target, f"BIN={bin_folder}", f"READY={here / 'ready'}", "--old-file", str(here / "ready")),
            f"ARGS={here / 'test_it.py'} -c {here / 'pytest.ini'} -p xdist -n 0 -p no:cacheprovider",
            PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
        )
        assert ended.returncode == 0, ended.stdout
        assert "the reason" in ended.stdout
        assert ended.stdout.count(".") >= passed


def test_the_quick_tests_are_those_that_are_not_slow(recorded):
    said, [(_, words, _)] = recorded("test-quick")
    assert "minute" in said
    assert words[-2:] == ["-m", "not slow"]


def test_fuzz_and_test_backends_select_tests_and_make_them_thorough(recorded):
    _, [(_, words, environment)] = recorded("fuzz", "STACKS=3")
    assert environment == {"MLPEXP_FUZZ": "3", "OMP_NUM_THREADS": "1"}
    assert recorded("fuzz")[1][0][2]["MLPEXP_FUZZ"] == "200"
    module, option, name = words[3:]
    assert option == "-k"
    assert re.search(rf"^def test_\w*{name}", (ROOT / module).read_text(encoding="utf-8"), re.MULTILINE)
    _, [(_, words, environment)] = recorded("test-backends")
    assert environment == {"MLPEXP_THOROUGH": "1", "OMP_NUM_THREADS": "1"}
    assert "thorough" in (ROOT / words[3]).read_text(encoding="utf-8")
    _, [(_, words, environment)] = recorded("test-thorough")
    assert environment == {"MLPEXP_THOROUGH": "1", "OMP_NUM_THREADS": "1"}
    assert words[-2:] == ["-m", "thorough"]
    _, [(_, words, environment)] = recorded("test-trackers")
    assert environment == {"MLPEXP_THOROUGH": "1", "OMP_NUM_THREADS": "1"}
    assert all((ROOT / word).is_file() for word in words[3:])
    _, [(_, words, environment)] = recorded("test-wheel")
    assert environment == {"MLPEXP_WHEEL": "1", "OMP_NUM_THREADS": "1"}
    assert "MLPEXP_WHEEL" in (ROOT / words[3]).read_text(encoding="utf-8")
    assert recorded("test-examples", "SIZE=full")[1][0][2]["MLPEXP_EXAMPLES"] == "full"
    _, [(_, words, environment)] = recorded("test-examples")
    assert environment == {"MLPEXP_EXAMPLES": "small", "OMP_NUM_THREADS": "1"}
    assert "MLPEXP_EXAMPLES" in (ROOT / words[3]).read_text(encoding="utf-8")


def test_lint_checks_style_and_types(recorded):
    assert recorded("lint")[1] == [["ruff", ["check"], {}], ["ruff", ["format", "--check"], {}], ["mypy", [], {}]]


def test_docs_builds_the_site_and_pictures_makes_its_pictures(recorded):
    said, [(_, words, _)] = recorded("docs")
    assert words == ["-m", "mkdocs", "build", "--strict", "--quiet"]
    assert "open site/index.html" in said
    assert recorded("pictures")[1] == [["python", ["docs/site/pictures.py"], {}]]


def test_bench_measures_one_run_and_sweeps(recorded):
    _, commands = recorded("bench", "ARGS=--quick")
    assert [words for _, words, _ in commands] == [
        ["benchmarks/single_run.py"],
        ["benchmarks/engines.py", "--quick"],
        ["benchmarks/sweeps.py", "--quick"],
    ]
    assert all((ROOT / words[0]).is_file() for _, words, _ in commands)


def test_studies_trains_and_draws_every_study(recorded):
    _, commands = recorded("studies")
    trained = [words[2].removeprefix("experiment=") for _, words, _ in commands[::2]]
    assert [words for _, words, _ in commands[1::2]] == [["scripts/study.py", name] for name in trained]
    assert all(words[:2] == ["scripts/train.py", "-m"] for _, words, _ in commands[::2])
    assert sorted(trained) == sorted({path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")} - {"notebook"})


def test_slurm_is_tested_where_there_is_one(here):
    assert os.access(ROOT / "tests/slurm/run.sh", os.X_OK)
    if shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin") is not None:
        pytest.skip("make test-slurm would start it, for minutes")
    ended = make("test-slurm", f"READY={here}")
    assert ended.returncode == 2
    assert "is missing: apt-get install slurm-wlm munge" in ended.stdout


def test_faults_is_the_campaign(recorded):
    _, [(_, words, environment)] = recorded("faults", "ARGS=--sample --only silence")
    assert words == ["tests/faults/campaign.py", "--sample", "--only", "silence"]  # test_faults runs it
    assert environment == {"OMP_NUM_THREADS": "1"}


def test_calibrate_is_the_calibration(recorded):
    _, [(_, words, environment)] = recorded("calibrate", "ARGS=--sweeps 10 --only scores")
    assert words == ["tests/calibration/calibrate.py", "--sweeps", "10", "--only", "scores"]
    assert environment == {"OMP_NUM_THREADS": "1"}
