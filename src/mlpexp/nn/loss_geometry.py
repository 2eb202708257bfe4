"""How the training loss of a network varies around its weights: noise of its gradient, its largest curvature.

Both differentiate the mean loss of a few samples without dropout, samples of equal weight; in double precision, but for
user-defined networks. Batch normalisation uses the statistics of each batch, as in training; a user's module is
differentiated as it is evaluated.

Letters: R runs, B samples, K batches, P parameters of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mlpexp.nn.lazy_torch import Tensor, torch
from mlpexp.nn.losses import LossFunction
from mlpexp.nn.network import NetworkSpec, forward

BATCHES = 16  # of the gradient's noise
LANCZOS_STEPS = 64
TOLERANCE = 1e-3  # of the eigenvalue


class GradientNoise(NamedTuple):
    """What McCandlish et al. (2018), appendix A.1, estimate of a gradient G, for each run (R,).

    Attributes:
        square: |G|², without bias: it may be negative where the noise is much larger.
        variance: the trace of the covariance of a sample's gradient, without bias.
    """

    square: Tensor
    variance: Tensor

    @property
    def scale(self) -> Tensor:
        """The simple noise scale tr(cov) / |G|² in samples, (R,); NaN where |G|² was estimated as 0 or less."""
        return torch.where(self.square > 0, self.variance / self.square, torch.nan)


def gradient_noise(
    network: NetworkSpec, tensors: Mapping[str, Tensor], inputs: Tensor, labels: Tensor, loss: LossFunction
) -> GradientNoise:
    """Estimated from the mean squared gradient of 16 batches, and from the square of their mean gradient.

    The batches are as large as the samples allow, and what remains is left out. NaN for a single sample.

    Args:
        tensors: parameters by full name, running statistics too, (R, ...).
        inputs: (R, B, I).
        labels: classes (R, B) or values (R, B, C).
    """
    runs, samples = inputs.shape[:2]
    batches = min(BATCHES, samples)
    small = samples // batches
    large = small * batches

    def in_batches(values: Tensor) -> Tensor:
        return values[:, :large].unflatten(1, (batches, small)).flatten(0, 1)

    repeated = {name: values.repeat_interleave(batches, 0) for name, values in tensors.items()}
    with torch.enable_grad():
        parameters, losses = _losses(network, repeated, in_batches(inputs), in_batches(labels), loss)
        gradients = torch.autograd.grad(losses.sum(), parameters, materialize_grads=True)
    flat = _flat(gradients).double().unflatten(0, (runs, batches))  # (R, K, P)
    of_small, of_large = flat.square().sum(-1).mean(-1), flat.mean(1).square().sum(-1)
    if batches == 1:
        return GradientNoise(of_small * torch.nan, of_small * torch.nan)
    return GradientNoise(
        square=(large * of_large - small * of_small) / (large - small),
        variance=(of_small - of_large) / (1 / small - 1 / large),
    )


def top_hessian_eigenvalue(
    network: NetworkSpec, tensors: Mapping[str, Tensor], inputs: Tensor, labels: Tensor, loss: LossFunction
) -> Tensor:
    """The largest eigenvalue of the Hessian of the loss by all parameters, (R,) float64; NaN where it is not finite.

    By the method of Lanczos with products of Hessian and vector: the power iteration that uses the vectors of all its
    steps, so it finds the largest eigenvalue and not that of the largest size. It ends where the eigenvalue is within
    0.1 % of one of the Hessian's, or after 64 products. Arguments as of `gradient_noise`.
    """
    return torch.stack(
        [
            _top_eigenvalue(
                network,
                {name: values[run : run + 1] for name, values in tensors.items()},
                inputs[run : run + 1],
                labels[run : run + 1],
                loss,
            )
            for run in range(len(inputs))
        ]
    )


def _top_eigenvalue(
    network: NetworkSpec, tensors: Mapping[str, Tensor], inputs: Tensor, labels: Tensor, loss: LossFunction
) -> Tensor:
    with torch.enable_grad():
        parameters, losses = _losses(network, tensors, inputs, labels, loss)
        gradient = _flat(torch.autograd.grad(losses.sum(), parameters, create_graph=True, materialize_grads=True))[0]

    def product(vector: Tensor) -> Tensor:
        if not gradient.requires_grad:  # no parameter is in it: the loss is piecewise linear
            return torch.zeros_like(vector)
        found = torch.autograd.grad(
            gradient, parameters, vector.to(gradient), retain_graph=True, materialize_grads=True
        )
        return _flat(found)[0].double()

    # the same directions for every run and epoch
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(len(gradient), generator=generator, dtype=torch.float64).to(gradient.device)
    basis = [vector / vector.norm()]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    for step in range(1, min(LANCZOS_STEPS, len(gradient)) + 1):
        moved = product(basis[-1])
        diagonal.append(moved @ basis[-1])
        known = torch.stack(basis)  # (step, P)
        for _ in range(2):  # twice is enough to stay orthogonal in rounded arithmetic
            moved = moved - known.mT @ (known @ moved)
        beside.append(moved.norm())
        if not beside[-1].isfinite() or not diagonal[-1].isfinite():
            return gradient.new_tensor(torch.nan, dtype=torch.float64)
        small = torch.diag(torch.stack(diagonal))
        if step > 1:
            off = torch.stack(beside[:-1])
            small = small + torch.diag(off, 1) + torch.diag(off, -1)
        values, vectors = torch.linalg.eigh(small)
        if beside[-1] * vectors[-1, -1].abs() <= TOLERANCE * values[-1].abs():
            break
        basis.append(moved / beside[-1])
    return values[-1]


def _losses(
    network: NetworkSpec, tensors: Mapping[str, Tensor], inputs: Tensor, labels: Tensor, loss: LossFunction
) -> tuple[list[Tensor], Tensor]:
    """The parameters as leaves of a graph, and the mean loss of each run, (R,)."""
    own = network.user_module is not None
    dtype = inputs.dtype if own else torch.float64
    leaves = {name: tensors[name].detach().to(dtype).requires_grad_() for name in network.shapes}
    further = {name: tensors[name].detach() for name in network.tensors if own and name not in leaves}
    outputs = forward(network, leaves | further, inputs.detach().to(dtype)).logits
    targets = labels.to(dtype) if labels.is_floating_point() else labels
    samples = loss.samples(outputs.flatten(0, 1), targets.flatten(0, 1))
    return list(leaves.values()), samples.unflatten(0, outputs.shape[:2]).mean(-1)


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    """(R, P) of each parameter's (R, ...)."""
    return torch.cat([values.flatten(1) for values in tensors], 1)
