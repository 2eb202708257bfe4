"""The training loss of a network around its weights: the noise of its gradient and its largest curvature.

Both differentiate the mean loss of a few samples, all of equal weight, without dropout. Precision is double, except for
user-defined networks. Batch normalisation uses the statistics of each batch, as in training; a user-defined network is
differentiated in evaluation mode.

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
    """The estimates of McCandlish et al. (2018), appendix A.1, for a gradient G of each run (R,).

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
    small_square, large_square = flat.square().sum(-1).mean(-1), flat.mean(1).square().sum(-1)
    if batches == 1:
        return GradientNoise(small_square * torch.nan, small_square * torch.nan)
    return GradientNoise(
        square=(large * large_square - small * small_square) / (large - small),
        variance=(small_square - large_square) / (1 / small - 1 / large),
    )


def top_hessian_eigenvalue(
    network: NetworkSpec, tensors: Mapping[str, Tensor], inputs: Tensor, labels: Tensor, loss: LossFunction
) -> Tensor:
    """The largest eigenvalue of the Hessian of the loss by all parameters, (R,) float64; NaN where it is not finite.

    The Lanczos method needs only products of the Hessian and a vector. Unlike power iteration it finds the largest
    eigenvalue and not the one of largest size. It stops where the value is within 0.1 % of an eigenvalue of the
    Hessian, or after 64 products. Arguments as of `gradient_noise`.
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
    """The eigenvalue of one run (R = 1), a scalar."""
    with torch.enable_grad():
        parameters, losses = _losses(network, tensors, inputs, labels, loss)
        gradient = _flat(torch.autograd.grad(losses.sum(), parameters, create_graph=True, materialize_grads=True))[0]

    def product(vector: Tensor) -> Tensor:
        if not gradient.requires_grad:  # no parameter is in it: the loss is piecewise linear
            return torch.zeros_like(vector)
        gradients = torch.autograd.grad(
            gradient, parameters, vector.to(gradient), retain_graph=True, materialize_grads=True
        )
        return _flat(gradients)[0].double()

    # the same directions for every run and epoch
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(len(gradient), generator=generator, dtype=torch.float64).to(gradient.device)
    basis = [vector / vector.norm()]
    diagonal: list[Tensor] = []
    off_diagonal: list[Tensor] = []
    for step in range(1, min(LANCZOS_STEPS, len(gradient)) + 1):
        residual = product(basis[-1])
        diagonal.append(residual @ basis[-1])
        vectors_so_far = torch.stack(basis)  # (step, P)
        for _ in range(2):  # after two projections the basis stays orthogonal in rounded arithmetic
            residual = residual - vectors_so_far.mT @ (vectors_so_far @ residual)
        off_diagonal.append(residual.norm())
        if not off_diagonal[-1].isfinite() or not diagonal[-1].isfinite():
            return gradient.new_tensor(torch.nan, dtype=torch.float64)
        tridiagonal = torch.diag(torch.stack(diagonal))
        if step > 1:
            beside = torch.stack(off_diagonal[:-1])
            tridiagonal = tridiagonal + torch.diag(beside, 1) + torch.diag(beside, -1)
        values, vectors = torch.linalg.eigh(tridiagonal)
        if off_diagonal[-1] * vectors[-1, -1].abs() <= TOLERANCE * values[-1].abs():
            break
        basis.append(residual / off_diagonal[-1])
    return values[-1]


def _losses(
    network: NetworkSpec, tensors: Mapping[str, Tensor], inputs: Tensor, labels: Tensor, loss: LossFunction
) -> tuple[list[Tensor], Tensor]:
    """The parameters as leaves of a graph, and the mean loss of each run, (R,)."""
    is_user_module = network.user_module is not None
    dtype = inputs.dtype if is_user_module else torch.float64
    leaves = {name: tensors[name].detach().to(dtype).requires_grad_() for name in network.shapes}
    buffers = {name: tensors[name].detach() for name in network.tensors if is_user_module and name not in leaves}
    outputs = forward(network, leaves | buffers, inputs.detach().to(dtype)).logits
    targets = labels.to(dtype) if labels.is_floating_point() else labels
    samples = loss.samples(outputs.flatten(0, 1), targets.flatten(0, 1))
    return list(leaves.values()), samples.unflatten(0, outputs.shape[:2]).mean(-1)


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    """(R, P) of each parameter's (R, ...)."""
    return torch.cat([values.flatten(1) for values in tensors], 1)
