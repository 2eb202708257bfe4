"""Archives that are put together from parts are read by torch as those that torch has written."""

import io
import math
import zipfile
from typing import Any

import pytest
import torch

from mlpexp.store.checkpoint_archive import ALIGNMENT, Pickled, archive

ROWS = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
CONTENT: dict[str, Any] = {
    "state_dict": {"layer.weight": ROWS[1], "bias": torch.tensor([math.nan, -0.0, math.inf]), "empty": torch.zeros(0)},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}, 1: {}}, "param_groups": [{"lr": 0.1}]}],
    "numbers": [0, -1, 255, 65536, 2**40, -(2**70), 1.5, math.inf, True, False, None],
    "texts": ["", "ä", "x" * 300, "line\nline"],
    "doubles": torch.linspace(0, 1, 5, dtype=torch.float64),
    "labels": torch.arange(3),
}


def load(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=True)


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert found.stride() == expected.stride()
        assert found.numpy().tobytes() == expected.numpy().tobytes()
    else:
        assert found == expected


@pytest.mark.parametrize("shared", [(), ("numbers", "texts"), ("optimizer_states",)], ids=str)
def test_torch_reads_what_it_would_have_written(shared: tuple[str, ...]) -> None:
    plain = CONTENT | {"optimizer_states": [{"a": {"b": [1, 2.0]}}]} if "optimizer_states" in shared else CONTENT
    written = io.BytesIO()
    torch.save(plain, written)
    parts = {key: Pickled(value) if key in shared else value for key, value in plain.items()}
    assert_same(load(archive(parts)), load(written.getvalue()))


@pytest.mark.parametrize("value", [0, 2**40, True, None, "text", -0.0], ids=repr)
def test_a_dict_is_put_together_around_the_value_of_a_key(value: Any) -> None:
    around = Pickled.around({"before": [1, True, 1.0, None], "none": None, "here": 5, "after": {"one": 1}}, "here")
    content = archive({"state_dict": {}, "whole": Pickled(value).inside(around)})
    expected = {"before": [1, True, 1.0, None], "none": None, "here": value, "after": {"one": 1}}
    assert repr(load(content)["whole"]) == repr(expected)


def test_a_view_is_saved_without_the_rest_of_its_storage() -> None:
    large = torch.zeros(1000, 100)
    assert len(archive({"state_dict": {"a": large[7]}})) < 3000


def test_storages_are_aligned_and_can_be_mapped_into_memory(tmp_path: Any) -> None:
    content = archive(CONTENT)
    with zipfile.ZipFile(io.BytesIO(content)) as found:
        assert found.testzip() is None
        for item in found.infolist():
            name, extra = (int.from_bytes(content[item.header_offset + at :][:2], "little") for at in (26, 28))
            assert (item.header_offset + 30 + name + extra) % ALIGNMENT == 0
    (tmp_path / "c.ckpt").write_bytes(content)
    assert_same(torch.load(tmp_path / "c.ckpt", weights_only=True, mmap=True)["state_dict"], CONTENT["state_dict"])


@pytest.mark.parametrize(
    "value", [object(), {1}, torch.zeros(1, dtype=torch.bfloat16)], ids=lambda value: str(type(value))
)
def test_what_is_no_plain_builtin_and_no_known_tensor_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a checkpoint holds"):
        archive({"state_dict": value})
