"""`weights_by_epoch.bin`: the weights of a run before training and after its epochs, in a file of bounded size.

A row for each epoch that is kept: its number as int64 (-1 before training), then all tensors of the network, flat, in
the order of `NetworkSpec.tensors`. For a file of at most 64 MiB, or three rows, every second, fourth, ... epoch is
kept, counted from the state before training; which ones follows from the number of epochs and the network alone. A run
that is continued removes the rows from its present epoch on, and those that its larger number of epochs does not keep.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpexp.runtime import safe_files
from mlpexp.runtime.safe_files import DamagedFile
from mlpexp.store import atomic_files
from mlpexp.store.file_names import WEIGHTS_BY_EPOCH

MAX_BYTES = 2**26  # of a file with more than three rows
MAX_READ = 2**36
START = -1  # the state before training
_NUMBER = np.dtype("<i8")


class WeightTrajectory:
    """The file of a run that trains.

    Args:
        directory: of the run.
        max_epochs: of its whole training.
    """

    def __init__(self, directory: Path, max_epochs: int) -> None:
        self._path, self._max_epochs = directory / WEIGHTS_BY_EPOCH, max_epochs
        self._is_open = False

    def add(self, epoch: int, weights: NDArray[np.floating[Any]]) -> None:
        """Append the weights after `epoch`, if the file keeps this epoch.

        Args:
            weights: all tensors, flat.

        Raises:
            UserError: the file is a link.
            OSError: the disk is full or broken.
        """
        size = _NUMBER.itemsize + weights.nbytes
        stride = epochs_between(self._max_epochs, size)
        if not self._is_open:
            self._open(epoch, size, stride)
        if (epoch - START) % stride == 0:
            atomic_files.append(self._path, _NUMBER.type(epoch).tobytes() + weights.tobytes())

    def _open(self, epoch: int, size: int, stride: int) -> None:
        self._is_open = True
        atomic_files.make_directory(self._path.parent, parents=True)
        try:
            content = safe_files.read_bytes(self._path, MAX_READ, follow=False)
        except FileNotFoundError:
            return
        rows = b"".join(
            row for number, row in _rows(content, size) if number < epoch and (number - START) % stride == 0
        )
        if rows != content:
            atomic_files.write(self._path, rows)


def epochs_between(max_epochs: int, row_bytes: int) -> int:
    """The distance between two epochs whose weights are kept: a power of 2."""
    stride = 1
    while stride < max_epochs and (max_epochs // stride + 1) * row_bytes > MAX_BYTES:
        stride *= 2
    return stride


def read(directory: Path, numbers: int, dtype: np.dtype[Any]) -> dict[int, NDArray[Any]]:
    """The weights by epoch, flat; empty where the run has not kept any.

    Args:
        numbers: of weights.
        dtype: theirs.

    Raises:
        UserError: the file cannot be read, or is not one of this network.
    """
    path = directory / WEIGHTS_BY_EPOCH
    try:
        content = safe_files.read_bytes(path, MAX_READ, follow=False)
    except FileNotFoundError:
        return {}
    size = _NUMBER.itemsize + numbers * dtype.itemsize
    by_epoch = {number: np.frombuffer(row, dtype, offset=_NUMBER.itemsize) for number, row in _rows(content, size)}
    if len(content) % size or sorted(by_epoch) != list(by_epoch) or min(by_epoch, default=START) < START:
        raise DamagedFile(f"{path} is damaged: it does not hold weights of this network; train the run again")
    return by_epoch


def _rows(content: bytes, size: int) -> Iterator[tuple[int, bytes]]:
    """Number and content of each whole row."""
    for begin in range(0, len(content) - size + 1, size):
        row = content[begin : begin + size]
        yield int(np.frombuffer(row, _NUMBER, 1)[0]), row
