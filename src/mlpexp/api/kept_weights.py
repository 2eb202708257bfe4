"""The weights that a run has kept of its epochs, as tensors by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlpexp.runtime.errors import UserError
from mlpexp.store import weight_trajectory

if TYPE_CHECKING:
    from torch import Tensor


def kept_weights(directory: Path, tensors: "Mapping[str, Tensor]") -> dict[int, NDArray[Any]]:
    """By epoch, flat.

    Args:
        tensors: of the run's network, for their shapes and order.
    """
    numbers = sum(values.numel() for values in tensors.values())
    dtype = np.dtype(str(next(iter(tensors.values())).dtype).removeprefix("torch."))
    return weight_trajectory.read(directory, numbers, dtype)


def weights_after(directory: Path, epoch: int, tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Those after an epoch, from 0; -1 is before training. Arguments as of `kept_weights`.

    Raises:
        UserError: the run has not kept them.
    """
    import torch

    found = kept_weights(directory, tensors)
    if epoch not in found:
        if not found:
            raise UserError(f"{directory} has kept no weights of its epochs; train with tracking.weights=every")
        known = list(found)
        spelled = ", ".join(map(str, known if len(known) <= 6 else [*known[:3], "...", *known[-2:]]))
        raise UserError(f"{directory} has not kept the weights of epoch {epoch}; it has those of {spelled}")
    pieces = torch.from_numpy(found[epoch].copy()).split([values.numel() for values in tensors.values()])
    return {name: piece.view(values.shape) for (name, values), piece in zip(tensors.items(), pieces, strict=True)}
