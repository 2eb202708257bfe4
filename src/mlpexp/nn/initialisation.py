"""How weights start: a pure function of the seed and the architecture."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

from mlpexp.nn.functional import Layer
from mlpexp.nn.parametrization import Factors


def initialise(
    sizes: Sequence[int],
    init: str,
    seed: int,
    *,
    sigma_w: float = 1.0,
    sigma_b: float = 0.0,
    factors: Sequence[Factors] | None = None,
) -> list[Layer]:
    """The initial layers of a network with `sizes` units: inputs, hidden layers, classes.

    The random stream is its own: `torch.manual_seed(seed)` followed by `nn.Linear` modules gives the same
    numbers as init=torch, and the caller's global stream is left alone.

    Args:
        factors: what each layer is multiplied by after it was drawn, see `parametrization`.
    """
    layers = [Layer(torch.empty(fan_out, fan_in), torch.empty(fan_out)) for fan_in, fan_out in pairwise(sizes)]
    initialise_(layers, init, seed, sigma_w=sigma_w, sigma_b=sigma_b, factors=factors)
    return layers


def initialise_(
    layers: Sequence[Layer],
    init: str,
    seed: int,
    *,
    sigma_w: float = 1.0,
    sigma_b: float = 0.0,
    factors: Sequence[Factors] | None = None,
) -> None:
    """The same, into existing float32 CPU tensors, such as one run's slices of a stack."""
    generator = Generator().manual_seed(seed)
    for weight, bias in layers:
        if init == "torch":
            # what nn.Linear.reset_parameters does, in its order
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
            bound = 1 / math.sqrt(weight.shape[-1])
            nn.init.uniform_(bias, -bound, bound, generator=generator)
        elif init == "scaled_normal":
            # Poole et al. 2016, "Exponential expressivity in deep neural networks", section 2
            nn.init.normal_(weight, 0.0, sigma_w / math.sqrt(weight.shape[-1]), generator=generator)
            nn.init.normal_(bias, 0.0, sigma_b, generator=generator)
        else:
            _WEIGHTS[init](weight, generator)
            nn.init.zeros_(bias)
    for (weight, bias), factor in zip(layers, factors or (), strict=False):
        weight.mul_(factor.weight)
        bias.mul_(factor.bias)


def _notebook(weight: Tensor, generator: Generator) -> None:
    # the notebook draws (inputs, outputs) and keeps it so; here rows are outputs
    weight.copy_(torch.randn(weight.shape[::-1], generator=generator).mT)


_WEIGHTS: dict[str, Callable[[Tensor, Generator], object]] = {
    "notebook": _notebook,
    # Glorot & Bengio 2010: equation 1, the "standard initialization" of its time, and equation 16, with gain 1
    "fan_in_uniform": lambda weight, generator: nn.init.uniform_(
        weight, -1 / math.sqrt(weight.shape[-1]), 1 / math.sqrt(weight.shape[-1]), generator=generator
    ),
    "xavier_uniform": lambda weight, generator: nn.init.xavier_uniform_(weight, generator=generator),
    "xavier_normal": lambda weight, generator: nn.init.xavier_normal_(weight, generator=generator),
    # He et al. 2015, equation 10: gain sqrt(2), whatever the activation
    "kaiming_uniform": lambda weight, generator: nn.init.kaiming_uniform_(
        weight, nonlinearity="relu", generator=generator
    ),
    "kaiming_normal": lambda weight, generator: nn.init.kaiming_normal_(
        weight, nonlinearity="relu", generator=generator
    ),
    # Saxe et al. 2014
    "orthogonal": lambda weight, generator: nn.init.orthogonal_(weight, generator=generator),
}
