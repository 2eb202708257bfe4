"""Faults at one operation on files: the process is killed before it, in the middle of it, or is told that it failed.

The calls of the operating system are replaced inside the forked process; the product knows nothing of it.
"""

import builtins
import io
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NAMES = ("mkdir", "rename", "replace", "unlink", "write", "fsync", "ftruncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


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

    def install(self, count: Callable[[int], None] = lambda number: None) -> None:
        """Replace this process's calls; `count` is told of each operation."""
        real = {name: getattr(os, name) for name in NAMES}
        done = -1

        def met(name: str, arguments: tuple[Any, ...]) -> None:
            nonlocal done
            done += 1
            count(done)
            if self.number < 0 or done < self.number or (done > self.number and not self.lasting):
                return
            if self.torn and name == "write":
                real["write"](arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            if self.error is not None:
                raise OSError(self.error, os.strerror(self.error))
            os.kill(os.getpid(), signal.SIGKILL)

        def watched(name: str) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                if name != "write" or arguments[0] > 2:  # the terminal is no file
                    met(name, arguments)
                return real[name](*arguments, **options)

            return call

        for name in NAMES:
            setattr(os, name, watched(name))
        real_os_open, real_open = os.open, io.open

        def os_open(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if flags & WRITING:
                met("open", ())
            return real_os_open(path, flags, *arguments, **options)

        def open_file(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if set(mode) & set("wax+") and file != os.devnull:
                met("open", ())
            return real_open(file, mode, *arguments, **options)

        os.open, io.open, builtins.open = os_open, open_file, open_file  # type: ignore[assignment]
