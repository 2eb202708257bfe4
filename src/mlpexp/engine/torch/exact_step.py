"""One step of a stack at one batch size, with the bits of each run alone: buffers and views made once.

Letters: R runs, B batch, I inputs, H hidden units, C classes, N samples.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlpexp.engine.torch.matrix_products import Affine
from mlpexp.engine.torch.stack_activations import StackActivation, reads_input
from mlpexp.nn.losses import LOSSES


class ExactPass:
    """Forward, loss and, if gradients are given, backward for batches of one size.

    Args:
        weights, biases: of each layer, (R, O, I) and (R, O).
        activations: one name per run.
        gradients: where to write those of weights and biases; None to go forward only.
        inputs: (R, B, I), to be filled before each call; contiguous or one (B, I) expanded over the runs.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        activations: Sequence[str],
        inputs: Tensor,
        gradients: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
        *,
        exact: bool = True,
    ) -> None:
        num_runs, batch = inputs.shape[:2]
        self._inputs = inputs
        self._layers: list[Affine] = []
        self._activations: list[StackActivation] = []
        below, below_gradient = inputs, None
        for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            pre = weight.new_empty(num_runs, batch, weight.shape[1])  # (R, B, O)
            gradient = None if gradients is None else torch.empty_like(pre)
            outlets = None
            if gradients is not None and gradient is not None:
                outlets = (gradients[0][k], gradients[1][k], gradient, below_gradient)
            self._layers.append(Affine(weight, bias, below, pre, outlets, exact=exact))
            if k < len(weights) - 1:
                hidden = torch.empty_like(pre) if reads_input(activations) else pre
                self._activations.append(StackActivation(activations, pre, hidden, gradient, exact=exact))
                below, below_gradient = hidden, gradient
            else:
                self.logits = pre
                self._loss = LOSSES["cross_entropy"].stacked(pre, gradient)

    def gather(self, samples: Tensor, index: Tensor) -> None:
        """Fill the inputs with rows of `samples` (N, I); `index` is (R * B,)."""
        torch.index_select(samples, 0, index, out=self._inputs.view(-1, samples.shape[1]))

    def forward(self) -> None:
        """Write the logits."""
        for layer, activation in zip(self._layers, self._activations, strict=False):
            layer.forward()
            activation.forward()
        self._layers[-1].forward()

    def measure(self, labels: Tensor, log_likelihoods: Tensor, predictions: Tensor) -> None:
        """Write what the logits are worth, see `CrossEntropy.forward`."""
        self._loss.forward(labels, log_likelihoods, predictions)

    def backward(self, labels: Tensor, slopes: Tensor | None = None) -> None:
        """Write the gradients of the batch's mean loss, see `CrossEntropy.backward`; `measure` has been called."""
        self._loss.backward(labels, slopes)
        self._layers[-1].backward()
        for layer, activation in zip(self._layers[-2::-1], self._activations[::-1], strict=True):
            activation.backward()
            layer.backward()
