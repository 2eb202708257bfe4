"""One step of a stack at one batch size, equal to each run alone up to rounding: the fast layout.

The batch stands last everywhere, so that the class axis is not the innermost, and plain gradient descent
multiplies straight into the weights.

Letters: R runs, B batch, I inputs, O outputs, H hidden units, C classes, N samples.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlpexp.engine.torch.stack_activations import StackActivation, reads_input


class FusedPass:
    """Forward, loss, backward and, for plain gradient descent, the update, for batches of one size.

    Args:
        weights, biases: of each layer, (R, O, I) and (R, O).
        activations: one name per run.
        gradients: where to write those of weights and biases.
        inputs: (R, B, I), contiguous, to be filled before each call.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        activations: Sequence[str],
        inputs: Tensor,
        gradients: tuple[Sequence[Tensor], Sequence[Tensor]],
    ) -> None:
        self._inputs = inputs
        self._weights, self._biases = weights, biases
        self._grad_weights, self._grad_biases = gradients
        num_runs, batch = inputs.shape[:2]
        shapes = [(num_runs, w.shape[1], batch) for w in weights]
        self._pre = [inputs.new_empty(shape) for shape in shapes]  # (R, O, B), the last one the logits
        apart = reads_input(activations)
        self._hidden = [torch.empty_like(x) if apart else x for x in self._pre[:-1]]
        self._gradients = [torch.empty_like(x) for x in self._pre]
        self._below = [inputs.mT, *self._hidden]  # (R, I, B)
        self._activations = [
            StackActivation(activations, *parts, exact=False)
            for parts in zip(self._pre[:-1], self._hidden, self._gradients[:-1], strict=True)
        ]
        self._columns = [bias.unsqueeze(2) for bias in biases]
        self._log_probabilities = torch.empty_like(self._pre[-1])
        self._minus_one = inputs.new_full((num_runs, 1, batch), -1.0)

    def gather(self, samples: Tensor, index: Tensor) -> None:
        """Fill the inputs with rows of `samples` (N, I); `index` is (R * B,)."""
        torch.index_select(samples, 0, index, out=self._inputs.view(-1, samples.shape[1]))

    def forward(self) -> None:
        """Write the logits (R, C, B)."""
        for k, weight in enumerate(self._weights):
            torch.baddbmm(self._columns[k], weight, self._below[k], out=self._pre[k])
            if k < len(self._activations):
                self._activations[k].forward()

    def measure(self, labels: Tensor, log_likelihoods: Tensor, predictions: Tensor) -> None:
        """Write each sample's log-likelihood (R, B, 1) and its predicted class (R, B).

        Args:
            labels: (R, B, 1).
        """
        torch.ops.aten._log_softmax.out(self._pre[-1], 1, False, out=self._log_probabilities)
        row = log_likelihoods.mT  # (R, 1, B), contiguous as one of its axes is one
        torch.gather(self._log_probabilities, 1, labels.mT, out=row)
        torch.argmax(self._log_probabilities, 1, out=predictions)

    def backward(self, labels: Tensor, negative_rates: Tensor | None = None, slopes: Tensor | None = None) -> None:
        """Write the gradients of the batch's mean loss or, given minus the rates (R, 1, 1), take the step.

        Args:
            slopes: see `CrossEntropy.backward`.
        """
        gradient = self._gradients[-1]
        torch.exp(self._log_probabilities, out=gradient)
        gradient.scatter_add_(1, labels.mT, self._minus_one)
        share: Any = 1.0 / gradient.shape[2] if slopes is None else -slopes.unsqueeze(1)  # (R, 1, B)
        gradient.mul_(share if negative_rates is None else negative_rates * share)
        for k in reversed(range(len(self._weights))):
            gradient, below = self._gradients[k], self._below[k]
            if k > 0:
                # before the weights change
                torch.bmm(self._weights[k].mT, gradient, out=self._gradients[k - 1])
            if negative_rates is None:
                torch.bmm(gradient, below.mT, out=self._grad_weights[k])
                torch.sum(gradient, 2, out=self._grad_biases[k])
            else:
                self._weights[k].baddbmm_(gradient, below.mT)
                self._biases[k].add_(gradient.sum(2))
            if k > 0:
                self._activations[k - 1].backward()
