"""Faults at one operation on files: the process is killed before it, in the middle of it, or is told that it failed.

The calls of the operating system are replaced inside the forked process and inherited by its workers; the product
knows nothing of it.
"""

import builtins
import io
import mmap
import os
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass
from errno import EDQUOT, EIO, ENOSPC
from pathlib import Path
from typing import Any

NAMES = ("mkdir", "rmdir", "rename", "replace", "unlink", "write", "fsync", "ftruncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
BROKEN = (EDQUOT, EIO, ENOSPC)
TEXT = 400
CACHE = "/mlpexp/numba-"  # compiled code: whether it is written depends on what ran before, and nothing needs it


def _number(place: int) -> property:
    def read(told: "Told") -> int:
        return int(struct.unpack_from("q", told.memory, 8 * place)[0])

    def write(told: "Told", value: int) -> None:
        struct.pack_into("q", told.memory, 8 * place, value)

    return property(read, write)


class Told:
    """What a forked process and its workers tell their parent, through memory that they share, whatever kills them."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 4096)

    operations = _number(0)
    """on files, so far"""
    hits = _number(1)
    """operations that failed, or over which a process was killed"""
    armed = _number(2)
    """1 once SIGTERM has a handler"""

    @property
    def hit(self) -> str:
        """The first operation that was hit, e.g. `open multirun/s/sweep.json`."""
        return self.memory[64 : 64 + TEXT].rstrip(b"\0").decode(errors="replace")

    def note_hit(self, what: str) -> None:
        if not self.hits:
            self.memory[64 : 64 + TEXT] = what.encode(errors="replace")[:TEXT].ljust(TEXT, b"\0")
        self.hits += 1


@dataclass(frozen=True)
class Fault:
    """What happens at the operation of this number, from 0; without one the operations are only counted."""

    number: int = -1
    torn: bool = False
    """a write is done by half before it happens"""
    error: int | None = None
    """the errno; None: the process is killed"""
    lasting: bool = False
    """every later operation fails too"""
    in_workers: bool = False
    """only operations of worker processes count, and are hit"""

    def install(self, told: Told, record: Path | None = None) -> None:
        """Replace this process's calls; each operation's process and path is appended to `record`."""
        real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in NAMES} | {"open": os.open}
        conductor = os.getpid()

        def met(name: str, path: Any, half: Callable[[], Any] | None = None) -> None:
            if record is not None and not isinstance(path, int):
                line = f"{os.getpid()}\t{name}\t{os.path.abspath(os.fsdecode(path))}\n"  # noqa: PTH100
                handle = real["open"](record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                real["write"](handle, line.encode())
                os.close(handle)
            if self.in_workers and os.getpid() == conductor:
                return
            if not isinstance(path, int) and CACHE in os.fsdecode(path):
                return
            number = told.operations
            told.operations = number + 1
            if self.number < 0 or number < self.number or (number > self.number and not self.lasting):
                return
            if self.error is not None and name == "mkdir" and os.path.isdir(path):  # noqa: PTH112
                return  # "File exists" comes first
            told.note_hit(f"{name} {path}")
            if self.torn and half is not None:
                half()
            if self.error is not None:
                raise OSError(self.error, os.strerror(self.error))
            os.kill(os.getpid(), signal.SIGKILL)

        def done(name: str, path: Any, call: Callable[[], Any]) -> Any:
            """The real call; that it found the disk full by itself is a hit as well."""
            try:
                return call()
            except OSError as error:
                if error.errno in BROKEN:
                    told.note_hit(f"{name} {path}")
                raise

        def watched(name: str) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                if name == "write" and arguments[0] <= 2:  # the terminal is no file
                    return real[name](*arguments, **options)
                half = None
                if name == "write":
                    half = lambda: real["write"](arguments[0], _half(arguments[1]))  # noqa: E731
                met(name, arguments[0], half)
                return done(name, arguments[0], lambda: real[name](*arguments, **options))

            return call

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                met("write", str(self.name), lambda: io.FileIO.write(self, _half(data)))
                return int(done("write", self.name, lambda: io.FileIO.write(self, data)))

        for name in NAMES:
            setattr(os, name, watched(name))
        real_open = io.open

        def os_open(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if not flags & WRITING:
                return int(real["open"](path, flags, *arguments, **options))
            met("open", path)
            return int(done("open", path, lambda: real["open"](path, flags, *arguments, **options)))

        def open_file(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            if not set(mode) & set("wax+") or isinstance(file, int) or file == os.devnull:
                return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
            met("open", file)
            raw = done("open", file, lambda: Raw(os.fspath(file), mode.replace("b", "").replace("t", ""), True, opener))
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            if "b" in mode:
                return buffered
            text = io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)
            text.mode = mode  # type: ignore[misc]
            return text

        os.open, io.open, builtins.open = os_open, open_file, open_file  # type: ignore[assignment]


def _half(data: Any) -> bytes:
    return bytes(data)[: len(data) // 2]
