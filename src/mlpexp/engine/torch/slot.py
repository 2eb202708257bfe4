"""The tensors of a layer and its neighbours, from which the layer's kernel is built.

Letters: R runs, B batch, I inputs of the layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mlpexp.nn.layers import LayerSpec


@dataclass(frozen=True, kw_only=True)
class Slot:
    """The arguments of a kernel.

    Attributes:
        layers: of each run; one kind, equal ones are neighbours.
        parameters: by short name, (R, ...); running statistics, too.
        gradients: of the parameters, by short name, (R, ...); None in an evaluation, which only goes forward.
        x: the input buffer, (R, B, I).
        x_gradient: the buffer of its derivative; None where none is needed.
        skip: the value that is added at the end of a residual block, (R, B, I).
        seeds: of each run; empty where nothing is random.
        overwrites_x: only this layer reads x after its forward pass, so that it may overwrite x.
    """

    layers: Sequence[LayerSpec]
    parameters: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor] | None
    x: Tensor
    x_gradient: Tensor | None
    skip: Tensor | None
    seeds: Sequence[int]
    overwrites_x: bool
