"""Identity, marker, lock: what a run's directory says about the run."""

import json
import math
import os
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlpexp.config.schema import Config, ModelConfig, TrainerConfig
from mlpexp.runtime.declared_options import Options
from mlpexp.runtime.errors import UserError
from mlpexp.store import directory_lock, file_names, run_directory
from mlpexp.store.identity import identity

DIGEST = "d" * 64
BLIND = {"name", "resume", "threads", "logger", "dry_run", "report", "record", "stack.threads", "stack.memory_mib"}
BLIND |= {"stack.save_every_s"}
BLIND |= {"diagnostics", "diagnostics_every", "keep_weights", "tracker"}
BLIND |= {"halving.factor"}  # while there are no rungs
BLIND |= {"data.path", "data.val_path", "data.test_path"}
BLIND |= {"trainer.accelerator", "trainer.enable_progress_bar"}
# another legal value for each key where one cannot be made from the default
OTHER: dict[str, Any] = {
    "name": "other",
    "tracking.weights": "every",
    "resume": "other",
    "monitor": "val/acc",
    "test_weights": "last",
    "record": "table",
    "metrics": ("f1",),
    "plugins": (f"/home/mine.py@{'e' * 64}",),
    "diagnostics": ("cka",),
    "tracker": ("csv",),
    "model.variant": "backprop",
    "model._target_": "my_module.Network",
    "model.arguments": {"hidden": 8},
    "model.source": "0" * 64,
    "model.depth": 3,
    "model.activation": "relu",
    "model.init": "notebook",
    "model.parametrization": "mup",
    "model.norm": "layer",
    "model.norm_position": "post",
    "data.split": "none",
    "data.path": "other.csv",
    "data.val_path": "other.csv",
    "data.test_path": "other.csv",
    "data.target": "species",
    "data.separator": "tab",
    "data.decimal": "comma",
    "data.encoding": "cp1252",
    "data.columns": ["age"],
    "data.drop": ["age"],
    "data.categorical": ["age"],
    "data.missing": "median",
    "data.thousands": "comma",
    "data.class_weight": "balanced",
    "data.folds": 5,
    "data.task": "regression",
    "data.sample_weight": "weight",
    "loss.name": "mse",
    "optimizer.name": "adam",
    "optimizer.schedule": "step",
    "optimizer.decay": "coupled",
    "optimizer.betas": (0.5, 0.9),
    "optimizer.eps": 1e-6,
    "optimizer.alpha": 0.5,
    "optimizer.adamw_lr": 0.1,
    "optimizer.clip_norm": 1.0,
    "optimizer.clip_value": 1.0,
    "optimizer.line_search_fn": "strong_wolfe",
    "ema.decay": 0.9,
    "swa.start": 1,
    "swa.lr": 0.1,
    "swa.anneal_strategy": "linear",
    **{f"{section}.options": Options({"mine": 1}) for section in ("model", "data", "loss", "optimizer")},
    "prune.fraction": 0.5,
    "prune.every": 1,
    "prune.rewind": "initial",
    "early_stopping.patience": 3,
    "trainer.accelerator": "auto",
    "trainer.flags": {"gradient_clip_val": 1.0},
    "callbacks": {"mine": {"_target_": "package.Class"}},
    "logger": {"mine": {"_target_": "package.Class"}},
    "stack.threads": 2,
    "stack.engine": "compiled",
    "stack.memory_mib": 100,
    "halving.rungs": [1],
    "tracking.figures": False,
    "tracking.diagnostics": False,
}


def leaves(value: Any, prefix: str = "") -> list[str]:
    """Every key of a configuration."""
    return [
        key
        for field in fields(value)
        for key in (
            leaves(getattr(value, field.name), f"{prefix}{field.name}.")
            if is_dataclass(getattr(value, field.name))
            else [f"{prefix}{field.name}"]
        )
    ]


def changed(cfg: Any, key: str, value: Any) -> Any:
    head, _, rest = key.partition(".")
    return replace(cfg, **{head: changed(getattr(cfg, head), rest, value) if rest else value})


def other(cfg: Config, key: str) -> Any:
    value: Any = cfg
    for name in key.split("."):
        value = getattr(value, name)
    if key in OTHER:
        return OTHER[key]
    return not value if isinstance(value, bool) else value / 2 + 0.25 if isinstance(value, float) else value + 1


@pytest.mark.parametrize("key", [key for key in leaves(Config()) if key != "data.name"])
def test_identity_sees_every_key_that_can_change_the_numbers_and_no_other(key: str):
    before = Config()
    after = changed(before, key, other(before, key))
    same = identity(before, DIGEST) == identity(after, DIGEST)
    assert same == (key in BLIND or key.startswith("tracking."))


def test_identity_sees_the_data():
    assert identity(Config(), DIGEST) != identity(Config(), "e" * 64)


def test_one_network_told_in_two_ways_is_one_run():
    twice = [ModelConfig(width=64, depth=2), ModelConfig(width=[64, 64]), ModelConfig(width=[64, 64], depth=2)]
    assert len({identity(Config(model=model), DIGEST) for model in twice}) == 1


def test_flags_that_change_no_number_are_not_in_the_identity():
    quiet = Config(trainer=TrainerConfig(flags={"log_every_n_steps": 1, "profiler": "simple"}))
    assert identity(quiet, DIGEST) == identity(Config(), DIGEST)


NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.just(math.nan))
RESULTS = st.builds(
    run_directory.Result,
    status=st.sampled_from(["ok", "chance", "diverged", "stopped", "failed", "interrupted"]),
    metrics=st.dictionaries(
        st.sampled_from(["train/loss", "val/acc", "test/loss"]), st.one_of(NUMBERS, st.just(math.nan))
    ),
    objective=st.one_of(NUMBERS, st.just(math.nan)),
    monitor=st.just("val/loss"),
    epoch=st.one_of(st.none(), st.integers(0, 99)),
    epochs=st.integers(0, 100),
    identity=st.just("a" * 64),
    data_digest=st.just(DIGEST),
    seconds=st.just({"fit": 1.5}),
    versions=st.just({"python": "3.11"}),
    git_commit=st.one_of(st.none(), st.text()),
    message=st.one_of(st.none(), st.text()),
    num_parameters=st.integers(0, 10**12),
    files=st.just({"metrics.csv": {"size": 3, "sha256": "b" * 64}}),
)
EXAMPLES = 200 if "MLPEXP_THOROUGH" in os.environ else 25
FEW = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@FEW
@given(RESULTS)
def test_a_result_is_read_as_it_was_written(tmp_path: Path, result: run_directory.Result):
    run_directory.write_result(tmp_path, result)
    assert repr(run_directory.read_result(tmp_path)) == repr(result)  # repr: NaN equals no NaN
    json.loads((tmp_path / file_names.RESULT).read_text(), parse_constant=pytest.fail)


@FEW
@given(RESULTS, st.data())
def test_a_mutated_result_is_refused_or_means_the_same(
    tmp_path: Path, result: run_directory.Result, data: st.DataObject
):
    run_directory.write_result(tmp_path, result)
    path = tmp_path / file_names.RESULT
    content = bytearray(path.read_bytes())
    match data.draw(st.sampled_from(["flip", "cut", "insert"])):
        case "flip":
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del content[data.draw(st.integers(0, len(content) - 1)) :]
        case "insert":
            content.insert(data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 255)))
    path.write_bytes(content)
    try:
        read = run_directory.read_result(tmp_path)
    except UserError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        assert repr(read) == repr(result)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is damaged"),
        ("[]", "is damaged (not a JSON object)"),
        ("{}", "has schema version None"),
        ('{"schema_version": 99}', "has schema version 99; this mlpexp knows 1: update it"),
        ('{"schema_version": 1}', "its own checksum does not match"),
        ("[" * 100_000, "is damaged"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: str, said: str):
    (tmp_path / file_names.RESULT).write_text(content)
    with pytest.raises(UserError) as caught:
        run_directory.read_result(tmp_path)
    assert said in str(caught.value)


def test_a_directory_without_a_marker_holds_no_finished_run(tmp_path: Path):
    with pytest.raises(UserError, match="holds no finished run"):
        run_directory.read_result(tmp_path)


def test_floats_in_tables_keep_every_digit():
    row = {"train/loss": 0.1 + 0.2, "train/acc": 1 / 3, "val/loss": 1e-17, "val/acc": 1.0}
    header, line = run_directory.metrics_csv([row]).splitlines()
    assert header == "epoch,train/loss,train/acc,val/loss,val/acc"
    assert [float(cell) for cell in line.split(",")] == [0, *row.values()]


def test_a_lock_names_its_holder_and_frees_itself_when_the_holder_is_killed(tmp_path: Path):
    program = "import sys, time; from pathlib import Path; from mlpexp.store import directory_lock\n"
    program += "directory_lock.take(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"is in use by pid {holder.pid} on "), directory_lock.hold(tmp_path):
            pass
        holder.kill()
    with directory_lock.hold(tmp_path):
        pass


def test_a_copy_of_the_process_does_not_hold_its_lock(tmp_path: Path):
    handle = directory_lock.take(tmp_path)
    reader, writer = os.pipe()
    ready, begun = os.pipe()
    if (child := os.fork()) == 0:
        os.write(begun, b"x")
        os.read(reader, 1)  # until the test is over
        os._exit(0)
    os.read(ready, 1)
    try:
        directory_lock.release(handle)
        with directory_lock.hold(tmp_path):
            pass
    finally:
        os.write(writer, b"x")
        os.waitpid(child, 0)
        for handle in (reader, writer, ready, begun):
            os.close(handle)


def test_a_reserved_directory_is_unchanged_until_it_is_signed(tmp_path: Path):
    assert directory_lock.reserve(tmp_path) is None
    assert not list(tmp_path.iterdir())
    (tmp_path / file_names.LOCK).write_text("pid 1 on earth\n")
    handle = directory_lock.reserve(tmp_path)
    assert handle is not None
    assert (tmp_path / file_names.LOCK).read_text() == "pid 1 on earth\n"
    with pytest.raises(UserError, match="is in use by pid 1 on earth"):
        directory_lock.take(tmp_path)
    directory_lock.sign(handle)
    with pytest.raises(UserError, match=f"is in use by pid {os.getpid()} on "):
        directory_lock.take(tmp_path)
    directory_lock.release(handle)


def test_a_metric_that_was_chosen_later_has_no_number_in_the_earlier_epochs(tmp_path: Path):
    text = "epoch,train/loss,val/loss,val/acc\n0,1.5,1.25,\n1,1.0,0.75,0.5\n"
    first, second = run_directory.parse_metrics(text, tmp_path / "metrics.csv")
    assert first["val/loss"] == 1.25 and math.isnan(first["val/acc"])
    assert second == {"train/loss": 1.0, "val/loss": 0.75, "val/acc": 0.5}
