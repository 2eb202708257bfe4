"""Measures of a network beside its metrics, once an epoch: columns of metrics.csv, one registry entry each.

They are computed on the first samples of the training part (`diagnostics.PROBE_SAMPLES`), from the weights that are
trained. Distance, rank and alignment cost at most a forward pass of the trained and of the initial network and one
decomposition; the others see `loss_geometry.py`, and docs/optimizers.md for measured times.

Letters: R runs, B samples, H units of the last hidden layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan

from mlpexp.nn.layers import Activate
from mlpexp.nn.lazy_torch import Tensor, torch
from mlpexp.nn.loss_geometry import GradientNoise, gradient_noise, top_hessian_eigenvalue
from mlpexp.nn.losses import LossFunction
from mlpexp.nn.network import NetworkSpec, forward
from mlpexp.runtime.registry import Registry


@dataclass(frozen=True)
class Probe:
    """The networks and samples from which a measure is computed.

    Attributes:
        parameters, initial: at present and before the first step, by name, (R, ...).
        inputs: (R, B, I).
        labels: classes (R, B), in a regression values (R, B, C).
        loss: the one that is minimised.
    """

    network: NetworkSpec
    parameters: Mapping[str, Tensor]
    initial: Mapping[str, Tensor]
    inputs: Tensor
    labels: Tensor
    loss: LossFunction

    @cached_property
    def hidden(self) -> Tensor:
        """The output of the last activation, centred over the samples, (R, B, H); the inputs without hidden layers."""
        return self._hidden(self.parameters)

    @cached_property
    def initial_hidden(self) -> Tensor:
        """The same of the initial network."""
        return self._hidden(self.initial)

    @cached_property
    def gradient_noise(self) -> GradientNoise:
        """The noise of the gradient on these samples, computed once for the three measures that read it."""
        return gradient_noise(self.network, self.parameters, self.inputs, self.labels, self.loss)

    def _hidden(self, parameters: Mapping[str, Tensor]) -> Tensor:
        trace = forward(self.network, {name: parameters[name] for name in self.network.shapes}, self.inputs)
        places = [k for k, layer in enumerate(self.network.layers) if isinstance(layer, Activate)]
        values = trace.values[places[-1] + 1] if places else self.inputs
        # a run that has diverged must not stop the others: the singular values of NaN are an error
        return (values - values.mean(-2, keepdim=True)).double().nan_to_num(0.0, 0.0, 0.0)


def _weight_distance(probe: Probe) -> Tensor:
    """Euclidean distance of all parameters from their initial values, over the norm of the latter."""
    names = list(probe.network.shapes)
    moved = sum((probe.parameters[n] - probe.initial[n]).double().flatten(1).square().sum(1) for n in names)
    before = sum(probe.initial[n].double().flatten(1).square().sum(1) for n in names)
    return torch.as_tensor(moved).sqrt() / torch.as_tensor(before).sqrt()


def _effective_rank(probe: Probe) -> Tensor:
    """The exponential of the entropy of the singular values' shares (Roy & Vetterli 2007)."""
    sizes = torch.linalg.svdvals(probe.hidden)
    shares = sizes / sizes.sum(-1, keepdim=True).clamp(min=1e-300)
    return torch.special.entr(shares).sum(-1).exp()


def _cka(probe: Probe) -> Tensor:
    """Linear centred kernel alignment with the initial network (Kornblith et al. 2019): 1 is equal up to rotation."""
    final, initial = probe.hidden, probe.initial_hidden
    cross, final_norm, initial_norm = (
        torch.linalg.matrix_norm(a.mT @ b) for a, b in ((final, initial), (final, final), (initial, initial))
    )
    return cross.square() / (final_norm * initial_norm).clamp(min=1e-300)


MEASURES: Registry[Callable[[Probe], Tensor]] = Registry(
    "diagnostic",
    {
        "weight_distance": _weight_distance,
        "effective_rank": _effective_rank,
        "cka": _cka,
        # |G|², tr(cov) and their ratio (McCandlish et al. 2018). The ratio of the means of the first two over epochs is
        # less noisy than the third.
        "gradient_square": lambda probe: probe.gradient_noise.square,
        "gradient_variance": lambda probe: probe.gradient_noise.variance,
        "gradient_noise_scale": lambda probe: probe.gradient_noise.scale,
        "top_hessian_eigenvalue": lambda probe: top_hessian_eigenvalue(
            probe.network, probe.parameters, probe.inputs, probe.labels, probe.loss
        ),
    },
)


def measure_network(names: Sequence[str], probe: Probe) -> dict[str, Tensor]:
    """These measures of each run, (R,) float64, by their columns `train/NAME`."""
    with torch.no_grad():
        return {f"train/{name}": MEASURES[name](probe) for name in names}


def unmeasured(names: Sequence[str]) -> dict[str, float]:
    """The cells of these columns in an epoch without measures."""
    return dict.fromkeys((f"train/{name}" for name in names), nan)
