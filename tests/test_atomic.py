"""A file is whole or not there, wherever the writing stops."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files

CALLS = ("open", "write", "close", "rename")
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
    real = getattr(os, call)

    def broken(*arguments: object, **settings: object) -> object:
        if call in ("close", "write"):  # a part may have been done
            real(arguments[0], *(part[: len(part) // 2] for part in arguments[1:]))  # type: ignore[index,arg-type]
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, broken)
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


def test_nothing_is_written_through_a_link_and_hard_linked_copies_keep_their_content(tmp_path: Path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").write_bytes(b"theirs")
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "link").symlink_to(theirs)
    with pytest.raises(UserError, match="symbolic link"):
        atomic_files.write(ours / "link" / "file", b"new")
    with pytest.raises(UserError, match="symbolic link"):
        atomic_files.make_directory(ours / "link")
    (ours / "to file").symlink_to(theirs / "file")
    with pytest.raises(UserError, match="symbolic link"):
        atomic_files.append(ours / "to file", b"new")
    atomic_files.write(ours / "to file", b"new")  # takes the link's place
    (ours / "hard").hardlink_to(theirs / "file")
    atomic_files.append(ours / "hard", b" and ours")
    assert (ours / "hard").read_bytes() == b"theirs and ours"
    assert [path.read_bytes() for path in theirs.iterdir()] == [b"theirs"]


def test_what_is_added_to_a_file_comes_after_what_was_there(tmp_path: Path):
    for text in ("a", "b", "c"):
        atomic_files.append(tmp_path / "file", text, durable=True)
    assert (tmp_path / "file").read_text() == "abc"


def test_no_fifo_is_opened_for_adding_to_it(tmp_path: Path):
    os.mkfifo(tmp_path / "file")
    with pytest.raises(UserError, match="not a regular file"):
        atomic_files.append(tmp_path / "file", "a")
