"""The events of earlier event files that a resumed run keeps."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event

from mlpexp.runtime import safe_files
from mlpexp.tracking.crc32c import masked_crc32c

MAX_BYTES = 2**32
# written again when the run starts or ends
CURVE, OF_THE_BEST = b"train/loss", b"val_best/"
OF_THE_END = ("_hparams_/", "val_best/", "custom_scalars__config__", "test/", "visual/", "status")


def carried_over(files: Sequence[Path], until: float) -> Iterator[Event]:
    """The curves and histograms in `files` up to the moment `until`, each point once.

    Of a file that a crash has truncated the whole records count.

    Raises:
        UserError: one of them is no regular file, or cannot be read.
    """
    seen: set[tuple[str, int]] = set()
    for path in files:
        for event in _events(safe_files.read_bytes(path, MAX_BYTES)):
            points = {(value.tag, event.step) for value in event.summary.value}
            if event.wall_time <= until and points and not points <= seen:
                if not any(tag.startswith(OF_THE_END) for tag, _ in points):
                    yield event
                seen |= points


def epoch_times(content: bytes) -> dict[int, float]:
    """When each epoch ended, in seconds since 1970, by its number: the times of the curves in a whole event file."""
    found: dict[int, float] = {}
    position = 0
    while position + 12 < len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        record = content[position + 12 : position + 12 + length]
        if CURVE in record and OF_THE_BEST not in record:
            event = Event.FromString(record)
            found[event.step] = event.wall_time
        position += length + 16
    return found


def _events(content: bytes) -> Iterator[Event]:
    position = 0
    while position + 12 < len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        end = position + 12 + length
        record, checksum = content[position + 12 : end], content[end : end + 4]
        if checksum != struct.pack("<I", masked_crc32c(record)):
            return
        yield Event.FromString(record)
        position = end + 4
