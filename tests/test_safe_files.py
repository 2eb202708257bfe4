"""Every file is read through one door: regular, bounded, never blocking."""

import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from mlpexp.runtime import safe_files, safe_yaml
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_files import DamagedFile, NotRegularFile, UnreadableFile


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's name is short
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_loop(path: Path) -> None:
    path.symlink_to(path.name)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (fifo, "is a FIFO"),
        (unix_socket, "is a socket"),
        (zeros, "is a device"),
        (Path.mkdir, "is a directory"),
        (link_loop, "symbolic link"),
        (sparse, "1,048,576 MiB, at most 64 MiB"),
    ],
)
def test_what_is_no_plain_file_is_refused_at_once_in_one_line(make, words, tmp_path):
    make(tmp_path / "it")
    ended = []

    def read() -> None:
        with pytest.raises(NotRegularFile, match=words) as error:
            safe_files.read_bytes(tmp_path / "it")
        ended.append(str(error.value))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(5)
    assert len(ended) == 1
    assert "\n" not in ended[0]


def test_a_plain_file_is_read_whole_and_a_link_only_where_it_may_be_followed(tmp_path):
    content = os.urandom(200_000)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").symlink_to("a")
    assert safe_files.read_bytes(tmp_path / "a", 200_000) == safe_files.read_bytes(tmp_path / "b") == content
    with pytest.raises(NotRegularFile, match="not followed"):
        safe_files.read_bytes(tmp_path / "b", follow=False)
    with pytest.raises(NotRegularFile, match="at most"):
        safe_files.read_bytes(tmp_path / "a", 199_999)


def test_a_file_of_no_stated_size_is_bounded_too():
    assert Path("/proc/self/status").stat().st_size == 0
    assert b"Pid" in safe_files.read_bytes("/proc/self/status")
    with pytest.raises(NotRegularFile, match="more than"):
        safe_files.read_bytes("/proc/self/status", 10)


def test_missing_unreadable_and_broken_are_three_things(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        safe_files.read_bytes(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        safe_files.read_bytes(tmp_path / "nothing" / "below")
    (tmp_path / "a").write_bytes(b"x")

    def read(number: int) -> None:
        def refuse(*_: object) -> bytes:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as broken:
            broken.setattr(os, "read", refuse)
            safe_files.read_bytes(tmp_path / "a")

    with pytest.raises(UnreadableFile, match="make it readable"):
        read(errno.EACCES)
    with pytest.raises(OSError, match="Input/output") as error:
        read(errno.EIO)
    assert not isinstance(error.value, UserError)


def test_a_name_with_a_nul_is_refused_in_words():
    with pytest.raises(NotRegularFile, match="no name of a file"):
        safe_files.read_bytes("a\0b")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "[" * 3000 + "]" * 3000,
        "a: *b",
        "a: !!python/object/apply:os.system [ls]",
        "a: &x [*x]",
        "a: " + "9" * 5000,
        "\x00",
    ],
    ids=["billion laughs", "deep", "no anchor", "code", "loop", "long number", "control"],
)
def test_yaml_that_expands_or_is_none_is_refused_in_one_line(text):
    with pytest.raises(DamagedFile, match=r"config\.yaml cannot be read as YAML") as error:
        safe_yaml.parse_yaml(text, "config.yaml")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_yaml_dates_stay_text():
    assert safe_yaml.parse_yaml("a: 2024-02-31\nb: [1, 2.5, true, null]", "c") == {
        "a": "2024-02-31",
        "b": [1, 2.5, True, None],
    }
