"""Advice and commands that are printed: they work when they are followed as printed."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SCRIPTS, Outcome

from mlpexp.config import checks, overrides, run_names, schema
from mlpexp.runtime.errors import ConfigError, UserError

Train = Callable[..., Outcome]
QUICK = "data=iris trainer.max_epochs=1 tracking.figures=false tracking.tensorboard=false"

# what is typed -> the advice, as a pattern whose group is typed in addition or instead
UNKNOWN = {
    "-m seed=1,2 +hydra.sweeper.direction=maximize": "losses are minimised and accuracies maximised",
    "-m seed=1,2 hydra.sweeper.direction=maximize": "hydra/sweeper=optuna 'hydra.sweeper.objectives=",
    "-m seed=1,2 +hydra.sweeper.foo=1": "hydra/sweeper=grid has params, max_batch_size",
    "-m seed=1,2 hydra.sweeper.foo=1": "max_batch_size, zip, skip, limit, seed; hydra/sweeper=optuna has",
    "-m seed=1,2 hydra.sweeper.n_trials=5": "it belongs to hydra/sweeper=optuna",
    "-m seed=1,2 +hydra.sweeper.n_trials=5": "it belongs to hydra/sweeper=optuna",
    "-m seed=1,2 +hydra.launcher.n_jobs=2": "hydra.launcher.backend=fork hydra.launcher.workers=2",
    "-m seed=1,2 hydra.launcher.n_jobs=2": "hydra.launcher.backend=fork hydra.launcher.workers=2",
    "-m seed=1,2 hydra.launcher.worker=2": "did you mean hydra.launcher.workers?",
    "-m hydra/sweeper=optuna model.width=1,2 +hydra.sweeper.prunr=x": "did you mean hydra.sweeper.pruner?",
    "-m hydra/sweeper=optuna model.width=1,2 +hydra.sweeper.study_name=x": "e.g. name=search",
    "-m hydra/sweeper=optuna model.width=1,2 +hydra.sweeper.n_trial=3": "did you mean hydra.sweeper.n_trials?",
    "+hydra.sweeper.foo=1": "hydra/sweeper=grid has",
    "+hydra.launcher.foo=1": "hydra/launcher=stacked has max_runs, backend",
}


@pytest.mark.parametrize("command", UNKNOWN)
def test_an_unknown_key_of_a_sweeper_or_launcher_is_answered_in_our_keys(
    command: str, train: Train, here: Path
) -> None:
    ended = train(command)
    assert ended.code == 2
    assert ended.line.startswith("train.py: unknown key 'hydra.")
    assert UNKNOWN[command] in ended.line
    assert list(here.iterdir()) == []


def test_a_search_names_all_that_chooses_the_runs_of_a_grid(train: Train, here: Path) -> None:
    ended = train("-m hydra/sweeper=optuna zip(seed=[1,2],model.width=[8,16]) skip=seed>1 limit=1 optimizer.lr=0.1,0.2")
    assert ended.code == 2
    for key, typed in (("zip", "zip(…)"), ("skip", "skip=…"), ("limit", "limit=…")):
        assert f"unknown key 'hydra.sweeper.{key}'; {typed} chooses the runs of hydra/sweeper=grid" in ended.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("-m seed=1,2 hydra.launcher.workers=abc", "hydra.launcher.workers=abc is out of range"),
        ("-m seed=1,2 hydra.launcher.max_runs=abc", "hydra.launcher.max_runs=abc is out of range"),
        ("-m seed=1,2 hydra.sweeper.max_batch_size=0", "hydra.sweeper.max_batch_size=0 is out of range"),
        ("-m seed=1,2 hydra.sweeper.params=3", "hydra.sweeper.params=3 is no mapping"),
        ("-m seed=1,2 hydra.launcher.slurm=3", "hydra.launcher.slurm=3 replaces a whole group"),
        ("-m 'optimizer.lr=interval(0.1,1)'", "list values, e.g. optimizer.lr=0.1,0.2"),
    ],
)
def test_a_wrong_value_for_a_sweeper_or_launcher_is_one_line(typed: str, said: str, train: Train, here: Path) -> None:
    ended = train(typed)
    assert ended.code == 2
    assert said in ended.line
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "advised"),
    [
        ("seed=1,2", None),
        ("optimizer.lr=0.1,0.2", None),
        ("model.activation=tanh,relu", None),
        ("tracking.figures=true,false", None),
        ("model.width=64,32", "'model.width=[64,32]'"),
        ("data.drop=a,b", "'data.drop=[a,b]'"),
        ("name=a,b", "'name=\"a,b\"'"),
        ("data.path=a,b.csv", "'data.path=\"a,b.csv\"'"),
    ],
)
def test_several_values_without_m_are_explained_by_what_the_key_takes(
    typed: str, advised: str | None, train: Train
) -> None:
    ended = train(typed)
    assert ended.code == 2
    assert f"'{typed}' is a list: add -m to sweep over it" in ended.line
    assert advised is None or advised in ended.line
    assert (", or write" in ended.line) == (advised is not None)
    if advised:  # it is read as one value then
        again = train(f"{advised} dry_run=true")
        assert "is a list: add -m" not in again.err


def test_different_runs_in_one_directory_get_advice_that_separates_them(train: Train, here: Path) -> None:
    command = f"-m {QUICK} name=s tracking.diagnostics=true,false"
    ended = train(command)
    assert ended.code == 2
    advice = re.search(r"name every key in their directories: ('[^']+')", ended.line)
    assert advice
    again = train(f"{command} {advice[1]}")
    assert again.code == 0, again.err
    names = {path.parent.name for path in (here / "multirun/s").glob("*/result.json")}
    assert {name.partition("diagnostics=")[2].lower() for name in names} == {"true", "false"}


def test_group_choices_are_in_a_runs_name(train: Train) -> None:
    ended = train(f"-m experiment=notebook,learning_rate_transfer {QUICK} dry_run=true seed=1,2")
    assert ended.code == 0, ended.err
    overrides = ["experiment=notebook", "data=wine", "+mine=a", "seed=1", "hydra.launcher.workers=2", "name=x"]
    assert run_names.run_name(overrides) == "data=wine,experiment=notebook,mine=a,seed=1"


def test_too_many_runs_are_refused_with_a_key_that_allows_them(train: Train) -> None:
    ended = train("-m 'seed=range(3)' hydra.launcher.max_runs=2 dry_run=true")
    assert ended.code == 2
    advice = ended.line.rpartition("add ")[2]
    assert train(f"-m 'seed=range(3)' dry_run=true {advice}").code == 0


BARE = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/"), "OMP_NUM_THREADS": "1"}  # no environment is active


def pasted(command: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    """Run a printed command in a shell that knows nothing of this environment."""
    return subprocess.run(
        ["/bin/sh", "-c", command], cwd=directory, env=BARE, capture_output=True, text=True, check=False
    )


def printed_commands(out: str) -> list[str]:
    return [line.strip() for line in out.splitlines() if line.startswith("  ") and "train.py" in line]


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize("lr", ["0.1", "1e-9"], ids=["trained", "at chance level"])
def test_the_next_command_keeps_the_overrides_and_works_when_pasted(
    lr: str, train: Train, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "scripts").symlink_to(SCRIPTS)
    monkeypatch.setenv("PATH", os.defpath)  # no environment is active
    words = [*QUICK.split(), f"optimizer.lr={lr}", "+callbacks.t._target_=lightning.pytorch.callbacks.Timer", "seed=3"]
    words.append("hydra.run.dir='outputs/it\\'s mine'")
    first = train(words)
    assert first.code == 0, first.err
    (command,) = printed_commands(first.out)
    assert shlex.split(command)[0] == sys.executable
    if lr != "0.1":
        for word in words[:-2]:
            assert word in shlex.split(command)
        assert "seed=3" not in shlex.split(command)
    ended = pasted(command, here)
    assert ended.returncode == 0, (command, ended.stderr)
    assert "Traceback" not in ended.stderr


def test_a_name_without_m_is_said_to_be_ignored(train: Train, here: Path) -> None:
    ended = train(f"{QUICK} name=depths")
    assert ended.code == 0
    assert "name is for sweeps (-m) and ignored here" in ended.line
    advice = ended.line.rpartition("named by ")[2]
    assert train(f"{QUICK} {advice}").code == 0
    assert (here / "outputs/depths/result.json").is_file()
    assert train(f"-m {QUICK} seed=1 name=depths").err == ""


def test_help_fits_into_80_columns_and_lists_choices(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = train("--help").out
    assert max(map(len, said.splitlines())) <= 80
    flat = " ".join(said.split())
    for key in ("model.activation", "model.init", "model.variant", "optimizer.schedule", "data.missing"):
        part = flat[flat.rindex(f" {key}=") :][:600]
        for choice in schema.choices()[key]:
            assert choice in part, (key, choice)
    assert "implementation: torch_nn" in flat


@pytest.mark.parametrize("key", ["model.activation", "model.init", "model.variant", "monitor", "tracking.figures"])
def test_completion_offers_every_choice_of_a_key(key: str, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    choices = schema.choices().get(key, ("true", "false"))
    for typed, expected in (
        (f"{key}=", [f"{key}={choice}" for choice in choices]),
        (f"seed=1 {key}={choices[1][:3]}", [f"{key}={c}" for c in choices if c.startswith(choices[1][:3])]),
        (f"-m {key}={choices[0]},", [f"{key}={choices[0]},{choice}" for choice in choices]),
    ):
        monkeypatch.setenv("COMP_LINE", f"python scripts/train.py {typed}")
        monkeypatch.setenv("COMP_POINT", "99")
        assert train("-sc query=bash").out.split() == expected


LISTS = ("metrics", "diagnostics")


def test_every_choice_that_is_offered_is_accepted() -> None:
    for key, choices in schema.choices().items():
        owner = checks.parse({}) if "." not in key else getattr(checks.parse({}), key.split(".")[0])
        name = key.rpartition(".")[2]
        for choice in choices:
            value = {"true": True, "false": False}.get(choice, choice)
            type(owner)(**{name: (value,) if key in LISTS else value})


WRONG = ["@@", -7, 1e99, 2.5, [], ["a", -1], {"a": 1}, True, "", float("nan"), None]


def nested(key: str, value: object) -> dict[str, object]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value  # type: ignore[return-value]


EXEMPLARY = [key for key, default, _ in schema.keys() if not isinstance(default, dict) and key not in schema.NOT_TYPED]


@pytest.mark.parametrize("key", EXEMPLARY)
def test_the_example_of_every_message_is_a_value_that_the_key_accepts(key: str) -> None:
    followed = 0
    for wrong in WRONG:
        try:
            checks.parse(nested(key, wrong))
        except ConfigError as error:
            (line,) = [line for line in error.problems if key in line][:1] or [""]
        else:
            continue
        if not line.startswith((f"{key}=", "unknown ")) or "e.g. " not in line or "belongs to" in line:
            continue
        for word in shlex.split(line.rpartition("e.g. ")[2].replace(" or ", " ").partition(";")[0]):
            override = overrides.parse(word)
            if override.key != key:
                continue
            followed += 1
            try:
                checks.parse(nested(key, override.value))
            except ConfigError as error:  # another key may be missing beside it, but this value is one of the key's
                kinds = ("is not", "is neither", "out of range", "unknown", "replaces", "give ")
                said = [line for line in error.problems if line.startswith(key)]
                if key == "model._target_":  # any text is one, and none here names a class
                    said = [line for line in said if ": give module and class, e.g. " not in line]
                assert not any(kind in line for line in said for kind in kinds), error
            except UserError as error:  # the advice is a plugin's name, and no file or module here has it
                assert key == "plugins"
                assert " is not there: " in str(error) or " cannot be found: " in str(error), error
    assert followed
