"""Event files: written live (`EventLog`) or at once (`encode`), and read when a run is continued.

A file is a sequence of TFRecords: length, checksum of the length, content, checksum of the content. TensorBoard's
`RecordWriter` is not used: its checksum in pure Python costs more than everything else. A reader silently drops
everything after a truncated record, so files of a process that has died are never appended to.
"""

import itertools
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from tensorboard.compat.proto.event_pb2 import Event

from mlpexp.runtime import safe_files
from mlpexp.tracking.crc32c import masked_crc32c, masked_crc32cs

MAX_BYTES = 2**32  # of a file that is read
# written again when the run starts or ends
CURVE, OF_THE_BEST = b"train/loss", b"val_best/"
OF_THE_END = ("_hparams_/", "val_best/", "custom_scalars__config__", "test/", "visual/", "status")
_file_numbers = itertools.count()


def encode(events: Iterable[Event]) -> bytes:
    """The content of an event file with these events, for one atomic write to `file_name(...)`."""
    events = list(events)
    wall_time = events[0].wall_time if events else time.time()
    return _records([_file_version(wall_time), *events])


def file_name(wall_time: float) -> str:
    """A name that TensorBoard recognises; different at each call, also between machines."""
    writer = f"{socket.gethostname()}.{os.getpid()}.{next(_file_numbers)}"
    return f"events.out.tfevents.{int(wall_time):010d}.{writer}"


class EventLog:
    """The event file of a run during training; for one thread.

    Records are buffered until `flush`, to be called once for each epoch. At other moments a reader may see a truncated
    record at the end, and waits for the rest.
    """

    def __init__(
        self, directory: Path, wall_time: float | None = None, *, hidden: bool = False, suffix: str = ""
    ) -> None:
        """
        Args:
            hidden: readers do not find the file until `publish`.
            suffix: of the name.
        """
        directory.mkdir(parents=True, exist_ok=True)
        started = time.time() if wall_time is None else wall_time
        self.path = directory / (file_name(started) + suffix)
        self._hidden = directory / f".{self.path.name}.partial" if hidden else None
        self._file = (self._hidden or self.path).open("xb")
        self._file.write(_records([_file_version(started)]))
        self.flush()

    def add(self, *events: Event) -> None:
        if events:
            self._file.write(_records(events))

    def flush(self) -> None:
        self._file.flush()

    def publish(self) -> None:
        """Give a hidden file its name; another process may have done so already."""
        if self._hidden is not None and self._hidden.exists():
            self._hidden.rename(self.path)
        self._hidden = None

    def close(self) -> None:
        """May be called twice; a file that is still hidden is removed."""
        self._file.close()
        if self._hidden is not None:
            self._hidden.unlink(missing_ok=True)

    def discard(self) -> None:
        """Close and remove the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def carried_over(files: Sequence[Path], until: float) -> Iterator[Event]:
    """The curves and histograms in earlier `files` of a run up to the moment `until`, each point once.

    Of a file that a crash has truncated the whole records count.

    Raises:
        UserError: one of them is no regular file, or cannot be read.
    """
    written: set[tuple[str, int]] = set()
    for path in files:
        for record, checksum in _contents(safe_files.read_bytes(path, MAX_BYTES)):
            if checksum != struct.pack("<I", masked_crc32c(record)):
                break
            event = Event.FromString(record)
            points = {(value.tag, event.step) for value in event.summary.value}
            if event.wall_time <= until and points and not points <= written:
                if not any(tag.startswith(OF_THE_END) for tag, _ in points):
                    yield event
                written |= points


def epoch_times(content: bytes) -> dict[int, float]:
    """The end of each epoch by its number, in seconds since 1970, from the curves of a complete event file."""
    curves = [record for record, _ in _contents(content) if CURVE in record and OF_THE_BEST not in record]
    return {event.step: event.wall_time for event in map(Event.FromString, curves)}


def _contents(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The content of each record of a file, and its checksum."""
    position = 0
    while position + 12 < len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        end = position + 12 + length
        yield content[position + 12 : end], content[end : end + 4]
        position = end + 4


def _file_version(wall_time: float) -> Event:
    return Event(wall_time=wall_time, file_version="brain.Event:2")


def _records(events: Sequence[Event]) -> bytes:
    contents = [event.SerializeToString() for event in events]
    pieces: list[bytes] = []
    for content, checksum in zip(contents, masked_crc32cs(contents), strict=True):
        pieces += [_length(len(content)), content, struct.pack("<I", checksum)]
    return b"".join(pieces)


@lru_cache(maxsize=4096)
def _length(size: int) -> bytes:
    length = struct.pack("<Q", size)
    return length + struct.pack("<I", masked_crc32c(length))
