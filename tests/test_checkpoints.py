"""Checkpoints are data: whatever a file holds, nothing of it runs, and what is wrong with it is named."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tree

from mlpexp.runtime.errors import UserError
from mlpexp.store import checkpoint_files, file_names


class Payload:
    """Creates a file when it is unpickled by whoever lets it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture
def last(finished: Path) -> Path:
    """The last checkpoint of a run without its marker, whose checksum would tell at once."""
    (finished / file_names.RESULT).unlink()
    return finished / file_names.LAST


def archive() -> bytes:
    """A ZIP file, as a checkpoint of torch's is one, with something else in it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("letter.txt", "hello")
    return content.getvalue()


# what a file may hold that is no checkpoint, and what is said of it
OTHER_KINDS = [
    pytest.param(b"", "is empty", id="empty"),
    pytest.param(b"epoch,loss\n0,1\n", "truncated or no checkpoint", id="text"),
    pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(100), "truncated or no checkpoint", id="picture"),
    pytest.param(pickle.dumps({"state_dict": {}}), "truncated or no checkpoint", id="pickle"),
    pytest.param(archive(), "is damaged", id="archive"),
]


def refusal(path: Path) -> str:
    """What a reader of checkpoints says to this one: loaded, described, its weights checked."""
    with pytest.raises(UserError) as caught:
        loaded = checkpoint_files.load(path)
        cfg, features, classes = checkpoint_files.described(path, loaded)
        checkpoint_files.check_weights(path, loaded["state_dict"], cfg.model.network(features, classes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    loaded = checkpoint_files.load(path)
    change(loaded)
    checkpoint_files.save(path, checkpoint_files.to_bytes(loaded))


def test_an_own_checkpoint_is_accepted(last: Path):
    loaded = checkpoint_files.load(last)
    cfg, features, classes = checkpoint_files.described(last, loaded)
    network = cfg.model.network(features, classes)
    assert network.sizes == [64, 50, 10]
    assert checkpoint_files.check_weights(last, loaded["state_dict"], network).keys() == loaded["state_dict"].keys()


@pytest.mark.parametrize(("content", "said"), OTHER_KINDS)
def test_other_kinds_of_files_are_refused(here: Path, content: bytes, said: str):
    path = here / "some.ckpt"
    path.write_bytes(content)
    assert said in refusal(path)


def test_what_is_not_there_or_not_a_file_is_refused(here: Path, finished: Path):
    assert "does not exist; give a checkpoint" in refusal(here / "nothing.ckpt")
    assert "is no regular file" in refusal(Path("/dev/null"))
    said = refusal(finished)
    assert "is a directory, not a checkpoint" in said
    assert str(finished / file_names.BEST) in said  # the one inside is offered
    assert "it holds no checkpoints/best.ckpt" in refusal(here)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.99])
def test_a_truncated_checkpoint_is_refused(last: Path, share: float):
    content = last.read_bytes()
    last.write_bytes(content[: int(len(content) * share)])
    assert "truncated or no checkpoint" in refusal(last)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("place", ["beside", "hyper_parameters", "state_dict", "callbacks"])
def test_a_payload_is_refused_as_such_and_never_run(last: Path, here: Path, place: str, forced: bool, monkeypatch):
    victim = here / "executed"

    def hide(loaded: dict[str, Any]) -> None:
        (loaded if place == "beside" else loaded[place])["payload"] = Payload(victim)

    rewrite(last, hide)
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert "holds objects or code beside tensors; it was not opened" in refusal(last)
    assert not victim.exists()


def test_resuming_from_a_payload_runs_nothing(train, last: Path, here: Path, monkeypatch):
    victim = here / "executed"
    rewrite(last, lambda loaded: loaded.update(payload=Payload(victim)))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    before = tree(here)
    outcome = train("resume=run trainer.max_epochs=4")
    assert outcome.code == 2
    assert "holds objects or code" in outcome.line
    assert tree(here) == before
    assert not victim.exists()


WRONG_CONTENT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no weights": (lambda c: c.pop("state_dict"), "it has no state_dict"),
    "no hyperparameters": (lambda c: c.pop("hyper_parameters"), "was not written by mlpexp"),
    "no configuration": (lambda c: c["hyper_parameters"].pop("config"), "was not written by mlpexp"),
    "a tensor missing": (lambda c: c["state_dict"].pop("layers.1.bias"), "lacks the tensor layers.1.bias"),
    "a tensor too many": (
        lambda c: c["state_dict"].update({"layers.9.bias": torch.zeros(1)}),
        "has the tensor layers.9.bias, which the network does not know",
    ),
    "another shape": (
        lambda c: c["state_dict"].update({"layers.0.bias": torch.zeros(49)}),
        "layers.0.bias is (49,), but the configuration says (50,)",
    ),
    "no tensor": (lambda c: c["state_dict"].update({"layers.0.bias": [0.0] * 50}), "layers.0.bias is list"),
    "NaN": (
        lambda c: c["state_dict"]["layers.0.weight"].fill_(float("nan")),
        "layers.0.weight holds NaN or infinite numbers",
    ),
    "an unknown activation": (
        lambda c: c["hyper_parameters"]["config"]["model"].update(activation="os.system"),
        "holds an impossible configuration: unknown activation",
    ),
    "an absurd width": (
        lambda c: c["hyper_parameters"]["config"]["model"].update(width=10**9),
        "holds an impossible configuration: model.width=1000000000",
    ),
    "an absurd depth": (
        lambda c: c["hyper_parameters"]["config"]["model"].update(width=1, depth=10**9),
        "holds an impossible configuration: model.depth=1000000000",
    ),
    "another width": (
        lambda c: c["hyper_parameters"]["config"]["model"].update(width=60),
        "layers.0.weight is (50, 64), but the configuration says (60, 64)",
    ),
    "no features": (lambda c: c["hyper_parameters"].update(num_features=0), "num_features and num_classes are [0, 10]"),
    "absurd features": (lambda c: c["hyper_parameters"].update(num_features=10**12), "num_features and num_classes"),
    "a key of the future": (
        lambda c: c["hyper_parameters"]["config"].update(quantum=True),
        "holds an impossible configuration: unknown key 'quantum'",
    ),
    "a target": (
        lambda c: c["hyper_parameters"]["config"]["model"].update(_target_="os.system"),
        "model._target_=os.system is no network of yours",
    ),
}


@pytest.mark.parametrize("kind", WRONG_CONTENT)
def test_what_does_not_fit_is_named_before_anything_is_built(last: Path, kind: str):
    change, said = WRONG_CONTENT[kind]
    rewrite(last, change)
    message = refusal(last)
    assert said in message
    assert str(last) in message


@pytest.mark.parametrize("group", ["callbacks", "logger"])
def test_classes_named_in_a_checkpoint_are_not_built(train, last: Path, here: Path, group: str):
    target = {"mine": {"_target_": "pathlib.Path.touch", "self": str(here / "executed")}}
    rewrite(last, lambda loaded: loaded["hyper_parameters"]["config"].update({group: target}))
    outcome = train("resume=run trainer.max_epochs=3")
    assert not (here / "executed").exists()
    if group == "callbacks":  # without them it would be another training
        assert outcome.code == 2
        assert "with the callbacks mine; type the same again, they are not built from what a file says" in outcome.line
    else:
        assert outcome.code == 0


def test_every_flipped_bit_is_found_by_the_markers_checksum(finished: Path):
    path = finished / file_names.LAST
    content = bytearray(path.read_bytes())
    for position in range(0, len(content), len(content) // 50):
        flipped = bytes([*content[:position], content[position] ^ 4, *content[position + 1 :]])
        path.write_bytes(flipped)
        assert "its checksum differs from result.json's" in refusal(path)


def test_a_checkpoint_never_holds_more_than_its_own_numbers(finished: Path):
    parameters = 4 * (64 * 50 + 50 + 50 * 10 + 10)
    with zipfile.ZipFile(finished / file_names.BEST) as archive:
        stored = sum(item.file_size for item in archive.infolist() if "/data/" in item.filename)
    assert stored == parameters
