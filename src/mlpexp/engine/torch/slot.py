"""What the kernel of a layer is made from.

Letters: R runs, B batch, I inputs of the layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mlpexp.nn.layers import LayerSpec


@dataclass(frozen=True, kw_only=True)
class Slot:
    """What a kernel is made from.

    Attributes:
        layers: of each run; one kind, equal ones are neighbours.
        parameters: by short name, (R, ...); running statistics, too.
        gradients: of the parameters, by short name, (R, ...); None for a pass that only goes forward, an evaluation.
        x: the input buffer, (R, B, I).
        x_gradient: the buffer of its derivative; None where none is needed.
        skip: the value that is added at the end of a residual block, (R, B, I).
        seeds: of each run; empty where nothing is random.
        overwrites_x: nothing needs x after this layer's forward pass, other than this layer.
    """

    layers: Sequence[LayerSpec]
    parameters: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor] | None
    x: Tensor
    x_gradient: Tensor | None
    skip: Tensor | None
    seeds: Sequence[int]
    overwrites_x: bool
