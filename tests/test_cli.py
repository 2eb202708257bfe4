"""Wrong commands as a new user types them: one helpful line for each problem, and nothing is touched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SCRIPTS, Outcome, tree

from mlpexp.cli import hydra_app, single_run_checks
from mlpexp.config import memory_checks

# what was typed -> what the one line must hold
WRONG = {
    "model.depth": ["cannot read the override 'model.depth'", "key=value"],
    "model.depth =2": ["cannot read the override 'model.depth'"],
    "model.depth= 2": ["cannot read the override '2'"],
    "model.depth=[": ["cannot read the override 'model.depth=['"],
    "=3": ["a config group needs the name of one of its choices"],
    "--foo": ["unknown option --foo", "without dashes"],
    "--help=foo": ["--help", "without dashes"],
    "model.dpeth=3": ["unknown key 'model.dpeth'", "did you mean model.depth?"],
    "modle=3": ["unknown key 'modle'", "below model"],
    "trainer.epochs=3": ["unknown key 'trainer.epochs'", "did you mean trainer.max_epochs?"],
    "seed=1 -m seed=2": ["settings must stand together", "-m before seed=2"],
    "lr=0.1": ["unknown key 'lr'", "did you mean optimizer.lr?"],
    "learning_rate=0.1": ["did you mean optimizer.lr?"],
    "epochs=3": ["did you mean trainer.max_epochs?"],
    "+foo=3": ["unknown key 'foo'", "--help"],
    "hydra.foo=3": ["unknown key 'hydra.foo'", "--cfg hydra"],
    "~model.depth": ["~model.depth deletes nothing"],
    "model._target_=os.system": ["model._target_=os.system is no network of yours", "e.g. model._target_=my_module."],
    "+model._target_=os.system": ["model._target_=os.system is no network of yours"],
    "+optimizer._target_=os.system": ["_target_ has no place in 'optimizer'"],
    "optimizer=adma": ["e.g. optimizer=adam"],
    "optimizr=adam": ["unknown config group 'optimizr'", "did you mean optimizer"],
    "optimizer=null": ["a config group needs the name of one of its choices"],
    "+optimizer=adam": ["chosen twice", "leave out the +"],
    "experiment=notebok": ["unknown experiment 'notebok'", "e.g. experiment=notebook"],
    "experiment=": ["unknown experiment ''", "notebook"],
    "seed=1,2": ["'seed=1,2' is a list: add -m"],
    "model.width=1,2": ["'model.width=1,2' is a list: add -m", "model.width=[1,2]"],
    "model.depth=three": ["model.depth=three is not a whole number", "e.g. model.depth=2"],
    "model.width=100000 model.depth=1000": ["9,990,107,400,010 parameters", "GiB of memory; this machine has"],
    "model.activation=tahn": ["unknown activation 'tahn'; choose one of elu, gelu", "e.g. model.activation=tanh"],
    "model.activation=${missing}": ["model.activation: Interpolation key 'missing' not found"],
    "model.activation=${oc.env:NOT_SET_X}": ["environment variable NOT_SET_X is not set"],
    "trainer.acelerator=gpu": ["did you mean trainer.accelerator?"],
    "trainer.fast_dev_run=true": ["put a + in front, +trainer.fast_dev_run"],
    "+trainer.gradient_clip_val=abc": ["trainer.gradient_clip_val=abc is not for lightning's Trainer"],
    "+trainer.precision=foo": ["trainer.precision=foo is not for lightning's Trainer"],
    "trainer=smok": ["unknown trainer 'smok'", "e.g. trainer=smoke"],
    "data=mnist": ["unknown data 'mnist'; choose one of"],
    "+callbacks.x._target_=nope.Nope": ["callbacks.x cannot be built", "No module named 'nope'"],
    "+callbacks.x._target_=builtins.dict": ["callbacks.x is a dict, not a callback of Lightning's"],
    "callbacks.x._target_=nope.Nope": ["put a + in front: +callbacks.x._target_"],
    "+logger.x._target_=lightning.pytorch.loggers.Nope": ["logger.x cannot be built", "'Nope'"],
    "hydra.run.dir=/dev/null/x": ["hydra.run.dir=/dev/null/x: /dev/null is a file"],
    "resume=nothing": ["resume=nothing does not exist", "e.g. resume=outputs/DATE/TIME"],
    "resume=": ["resume='' is empty"],
    "resume=/dev/null": ["resume=/dev/null is no directory"],
    "resume=.": ["has no checkpoints/last.ckpt"],
    "resume=. model.depth=3": ["model.depth cannot be given; only trainer.max_epochs may grow"],
}


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_command_is_answered_in_one_helpful_line_and_touches_nothing(train, here: Path, command: str):
    outcome: Outcome = train(command)
    assert outcome.code == 2
    for part in WRONG[command]:
        assert part in outcome.line
    assert len(outcome.line) < 450
    assert outcome.out == ""
    assert tree(here) == {}


@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_a_device_that_is_not_there_is_refused_by_name(train, here: Path, name: str, monkeypatch):
    from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

    for accelerator in (CUDAAccelerator, MPSAccelerator):
        monkeypatch.setattr(accelerator, "is_available", staticmethod(lambda: False))
    outcome = train(f"trainer.accelerator={name}")
    assert outcome.code == 2
    assert f"trainer.accelerator={name}: no such device is available on this machine" in outcome.line
    assert tree(here) == {}


def test_all_problems_of_one_configuration_are_named_at_once(train, here: Path):
    outcome = train("model.depth=a model.width=b optimizer.lr=c +trainer.foo=1 +optimizer._target_=x")
    assert outcome.code == 2
    found = [next(key for key in line.split() if "." in key and key != "train.py:") for line in outcome.lines]
    assert len(found) == 5, outcome.err
    for key in ("model.depth=a", "model.width=b", "optimizer.lr=c", "'trainer.foo'", "_target_"):
        assert key in outcome.err
    assert tree(here) == {}


def test_all_unknown_keys_are_named_at_once(train):
    assert len(train("model.depht=1 model.widht=3 optimizer=adam lr=3").lines) == 3


def test_the_traceback_is_there_for_who_asks(train, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    outcome = train("model.depth=three")
    assert outcome.code == 2
    assert "Traceback" in outcome.err


def test_a_run_is_not_written_over_another(train, here: Path):
    assert train("trainer=smoke hydra.run.dir=run tracking.figures=false").code == 0
    before = tree(here)
    outcome = train("trainer=smoke hydra.run.dir=run")
    assert (outcome.code, tree(here)) == (2, before)
    assert "run is not empty" in outcome.line
    assert "resume=run" in outcome.line


def test_a_file_in_the_place_of_the_run_is_left_alone(train, here: Path):
    (here / "run").write_text("mine")
    outcome = train("hydra.run.dir=run")
    assert outcome.code == 2
    assert "run is a file" in outcome.line
    assert (here / "run").read_text() == "mine"


def test_a_place_that_cannot_be_written_to_is_refused(here: Path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(hydra_app.UserError, match="cannot be written to; give another directory"):
        single_run_checks.refuse_used(here / "new")


def test_two_runs_in_one_second_have_two_directories(train, here: Path):
    for _ in range(3):
        assert train("trainer=smoke tracking.figures=false tracking.tensorboard=false").code == 0
    assert len(list(here.glob("outputs/*/*"))) == 3


def test_a_batch_larger_than_the_data_is_warned_of_once(train):
    outcome = train("data.batch_size=5000 trainer=smoke tracking.figures=false")
    assert outcome.code == 0
    assert "data.batch_size=5000 is larger than the 1257 training samples" in outcome.line


def test_seed_zero_is_a_seed_like_any_other(train, here: Path):
    for seed in (0, 1):
        assert train(f"seed={seed} trainer=smoke hydra.run.dir={seed} tracking.figures=false").code == 0
    assert (here / "0/metrics.csv").read_text() != (here / "1/metrics.csv").read_text()


@pytest.mark.parametrize(("command", "needed"), [("model.width=100", 2**18), ("model.depth=3 model.width=1000", 2**25)])
def test_memory_is_compared_with_the_machines(command: str, needed: int, train, monkeypatch):
    monkeypatch.setattr(memory_checks.portable, "total_memory", lambda: needed)
    outcome = train(command)
    assert outcome.code == 2
    assert "so choose a smaller network" in outcome.line


def test_help_and_the_composed_configuration_are_for_people(train, here: Path):
    outcome = train("--help")
    assert outcome.code == 0
    for key in ("model.depth=", "optimizer.lr=0.1", "trainer.max_epochs=10", "experiment: ", ", notebook, "):
        assert key in outcome.out
    assert "max_epochs: 3" in train("--cfg job trainer.max_epochs=3").out
    assert tree(here) == {}


def test_a_closed_pipe_ends_quietly(here: Path):
    command = f"{sys.executable} {SCRIPTS / 'train.py'} --help | head -1"
    ended = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert ended.stdout.startswith("Train multilayer perceptrons")
    assert ended.stderr == ""


def test_completion_offers_keys_and_choices(here: Path):
    def offered(line: str) -> set[str]:
        env = os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_CWORD": "1"}
        script = str(SCRIPTS / "train.py")
        ended = subprocess.run(
            [sys.executable, script, "-sc", "query=bash"], env=env, capture_output=True, text=True, check=True
        )
        return set(ended.stdout.split())

    assert {"optimizer=adam", "optimizer=sgd"} <= offered("python scripts/train.py optimizer=")


SMALL = "data=iris trainer.max_epochs=1 tracking.figures=false"


@pytest.mark.parametrize("command", [SMALL, f"-m {SMALL} seed=1,2", f"-m {SMALL} seed=1,2 model.variant=backprop"])
def test_variables_of_slurm_in_the_shell_change_nothing(command: str, train, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NAME", "sweep")
    ended = train(command)
    said = [line for line in ended.err.splitlines() if not line.startswith("compiling ")]  # once on this machine
    assert (ended.code, said) == (0, [])


@pytest.mark.parametrize("script", ["train.py", "report.py", "evaluate.py", "predict.py", "export.py", "gradcheck.py"])
def test_a_deleted_working_directory_is_one_line(script: str, tmp_path: Path):
    place = tmp_path / "gone"
    place.mkdir()
    program = f"cd {place} && rmdir {place} && exec {sys.executable} {SCRIPTS / script} run"
    ended = subprocess.run(["/bin/sh", "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"{script}: the working directory has been deleted; change to one that exists, e.g. with cd\n"
    )


@pytest.mark.parametrize("bar", ["RichProgressBar", "TQDMProgressBar"])
@pytest.mark.parametrize("mode", ["", "-m seed=1,2"])
def test_a_progress_bar_of_the_users_takes_the_place_of_ours(bar: str, mode: str, train):
    ended = train(f"{mode} {SMALL} +callbacks.bar._target_=lightning.pytorch.callbacks.{bar}")
    assert ended.code == 0, ended.err
    assert "training ━" not in ended.err
