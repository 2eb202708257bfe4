"""One step of a stack at one batch size, equal to each run alone up to rounding: the fast layout.

The batch stands last everywhere, so that the class axis is not the innermost, and plain gradient descent
multiplies straight into the weights.

Letters: R runs, B batch, I inputs, O outputs, H hidden units, C classes, N samples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlpexp.engine.torch.stack_activations import StackActivation
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.layers import Activate, LayerSpec, Linear
from mlpexp.nn.network import NetworkSpec

KINDS: tuple[type[LayerSpec], ...] = (Linear, Activate)  # of layers that this pass knows


class FusedPass:
    """Forward, loss, backward and, for plain gradient descent, the update, for batches of one size.

    Args:
        networks: of each run, dense layers with activations between them; they differ in activations only.
        parameters: by name, (R, ...).
        inputs: (R, B, I), contiguous, to be filled before each call.
        gradients: where to write those of the parameters.
    """

    def __init__(
        self,
        networks: Sequence[NetworkSpec],
        parameters: Mapping[str, Tensor],
        inputs: Tensor,
        gradients: Mapping[str, Tensor],
    ) -> None:
        self._inputs = inputs
        network = networks[0]
        places = [k for k, _ in network.linear]
        self._weights, self._biases, self._grad_weights, self._grad_biases = (
            [network.of_layer(k, tensors)[name] for k in places]
            for tensors in (parameters, gradients)
            for name in ("weight", "bias")
        )
        num_runs, batch = inputs.shape[:2]
        shapes = [(num_runs, w.shape[1], batch) for w in self._weights]
        self._pre = [inputs.new_empty(shape) for shape in shapes]  # (R, O, B), the last one the logits
        names = [[layer.name for layer in own.layers if isinstance(layer, Activate)] for own in networks]
        apart = any(ACTIVATIONS[name].reads_input for own in names for name in own)
        self._hidden = [torch.empty_like(x) if apart else x for x in self._pre[:-1]]
        self._gradients = [torch.empty_like(x) for x in self._pre]
        self._below = [inputs.mT, *self._hidden]  # (R, I, B)
        self._activations = [
            StackActivation([own[k] for own in names], *buffers, exact=False)
            for k, buffers in enumerate(zip(self._pre[:-1], self._hidden, self._gradients[:-1], strict=True))
        ]
        self._columns = [bias.unsqueeze(2) for bias in self._biases]
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
