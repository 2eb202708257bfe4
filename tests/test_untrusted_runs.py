"""Bad and hostile runs, given to each command that reads them: one line, nothing run, nothing written."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import run_script, tree
from test_checkpoints import OTHER_KINDS, WRONG_CONTENT, Payload, rewrite

from mlpexp.store import file_names

COMMANDS: dict[str, list[str]] = {
    "evaluate.py": ["--no-embedding"],
    "predict.py": ["--data", "samples.csv"],
    "export.py": ["--format", "safetensors"],
}


@pytest.fixture(params=COMMANDS)
def refusal(request: pytest.FixtureRequest, finished: Path, here: Path) -> Callable[..., str]:
    """What a command says to a path; it has to be one line, and to leave every file as it was."""
    (here / "samples.csv").write_text(",".join(["8"] * 64) + "\n")

    def call(path: str | Path = "run") -> str:
        before = tree(here)
        outcome = run_script(request.param, [str(path), *COMMANDS[request.param]])
        assert outcome.code == 2, outcome.out + outcome.err
        assert outcome.out == ""
        assert tree(here) == before
        return outcome.line

    return call


def best(here: Path) -> Path:
    """A checkpoint of a run without its marker, whose checksum would tell at once."""
    (here / "run" / file_names.RESULT).unlink(missing_ok=True)
    return here / "run" / file_names.BEST


@pytest.mark.parametrize(
    ("content", "said"), [*OTHER_KINDS, pytest.param(None, "truncated or no checkpoint", id="half of one")]
)
def test_other_kinds_of_files(refusal, here, content, said):
    path = best(here)
    path.write_bytes(path.read_bytes()[:5_000] if content is None else content)
    assert said in refusal()
    shutil.copy(path, here / "some.ckpt")
    assert said in refusal("some.ckpt")


@pytest.mark.parametrize("forced", [False, True])
def test_code_is_never_run(refusal, here, forced, monkeypatch):
    victim = here / "executed"
    rewrite(best(here), lambda loaded: loaded["hyper_parameters"].update(payload=Payload(victim)))
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert "holds objects or code beside tensors; it was not opened" in refusal()
    assert not victim.exists()


def _data(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda loaded: loaded["hyper_parameters"]["data"].update(changes)


def _features(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda loaded: loaded["hyper_parameters"]["data"]["features"].update(changes)


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = WRONG_CONTENT | {
    "no description of the data": (lambda c: c["hyper_parameters"].pop("data"), "train the run again"),
    "fewer classes than the network": (_data(class_names=["a", "b"]), "2 classes"),
    "fewer features than the network": (_features(names=["a"], shift=[0.0], scale=[1.0]), "1"),
    "a scale of zero": (_features(scale=[0.0] * 64), "scale"),
    "a shift that is no number": (_features(shift=[float("nan")] * 64), "shift"),
    "names that are no texts": (_data(class_names=list(range(10))), "class_names.0: Input should be a valid string"),
    "an absurd picture": (_data(image_shape=[10**9, 10**9]), "image_shape"),
    "one number seen from many places": (
        lambda c: c["state_dict"].update({"layers.0.weight": torch.zeros(1).expand(50, 64)}),
        "layers.0.weight is no plain tensor of floating-point numbers",
    ),
    "a sparse tensor": (
        lambda c: c["state_dict"].update({"layers.0.weight": torch.zeros(50, 64).to_sparse()}),
        "layers.0.weight is no plain tensor",
    ),
    "whole numbers": (
        lambda c: c["state_dict"].update({"layers.0.bias": torch.zeros(50, dtype=torch.int64)}),
        "layers.0.bias is no plain tensor",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_does_not_fit_is_named(refusal, here, kind):
    change, said = HOSTILE[kind]
    rewrite(best(here), change)
    line = refusal()
    assert said in line
    assert "run/checkpoints/best.ckpt" in line


def test_a_flipped_bit_and_another_runs_checkpoint_are_found_by_the_markers_checksum(refusal, here):
    path = here / "run" / file_names.BEST
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    assert "its checksum differs from result.json's" in refusal()


def test_a_damaged_or_newer_marker_is_no_guess(refusal, here):
    marker = here / "run" / file_names.RESULT
    whole = marker.read_text()
    marker.write_text(whole[:100])
    assert "result.json is damaged" in refusal()
    marker.write_text(whole.replace('"schema_version": 1', '"schema_version": 99'))
    assert "result.json has schema version 99; this mlpexp knows 1: update it" in refusal()


def test_a_compressed_checkpoint_is_not_inflated(refusal, here):
    import zipfile

    path = best(here)
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in entries.items():
            new.writestr(name, content)
    assert "is compressed, which no checkpoint of torch's is" in refusal()


def test_what_is_not_there_or_never_ends(refusal, here):
    assert "does not exist" in refusal("nowhere")
    assert "is no regular file" in refusal("/dev/zero")
    (here / "empty").mkdir()
    assert "empty holds no run" in refusal("empty")
    (here / "run" / file_names.BEST).unlink()
    assert "run has no checkpoints/best.ckpt; it has the other one: --weights last" in refusal()
