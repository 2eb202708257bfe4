"""A file is whole or not there, wherever the writing stops."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlpexp.store import atomic_files

CALLS = ("open", "write", "close", "replace")
FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@FEW
@given(old=st.one_of(st.none(), st.binary(max_size=50)), new=st.binary(max_size=5000), call=st.sampled_from(CALLS))
def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, old: bytes | None, new: bytes, call: str
):
    path = tmp_path / "file"
    path.unlink(missing_ok=True)
    if old is not None:
        path.write_bytes(old)
    real = getattr(Path if call == "replace" else os, call)

    def broken(*arguments: object, **settings: object) -> object:
        if call in ("close", "write"):  # a part may have been done
            real(arguments[0], *(part[: len(part) // 2] for part in arguments[1:]))  # type: ignore[index,arg-type]
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path if call == "replace" else os, call, broken)
        if new or call != "write":  # nothing is written of nothing
            with pytest.raises(OSError, match="No space left"):
                atomic_files.write(path, new)
        else:
            atomic_files.write(path, new)
    assert (path.read_bytes() if path.exists() else None) in ((old, new) if not new else (old,))
    assert [item.name for item in tmp_path.iterdir()] in ([], ["file"])


@FEW
@given(st.binary(max_size=100_000))
def test_what_was_written_is_read_also_when_the_system_takes_it_in_pieces(tmp_path: Path, content: bytes):
    path, write = tmp_path / "file", os.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda handle, data: write(handle, data[:7000]))
        atomic_files.write(path, content)
    assert path.read_bytes() == content


def test_text_is_written_as_utf8(tmp_path: Path):
    atomic_files.write(tmp_path / "file", "σ²\n")
    assert (tmp_path / "file").read_bytes() == "σ²\n".encode()
