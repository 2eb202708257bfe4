"""Standard output and error whose reader may leave: `… | head` ends the telling, not the training."""

import io
import os
import sys
from typing import Any


def patient() -> None:
    """From now on, once nobody reads any more what this process says, it says it to nobody."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # closed before we began; a file of ours that got its number would be printed into
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, io.TextIOWrapper) and stream.fileno() == number:
            buffer = io.BufferedWriter(_Patient(number, "w", closefd=False))
            setattr(
                sys,
                name,
                io.TextIOWrapper(
                    buffer,
                    stream.encoding,
                    stream.errors,
                    line_buffering=stream.line_buffering,
                    write_through=stream.write_through,
                ),
            )


class _Patient(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nobody = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nobody, self.fileno())  # libraries and workers may write there, too
            os.close(nobody)
            return len(data)
