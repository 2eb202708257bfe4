"""One step of a stack at one batch size: buffers and views made once.

The same computation as `nn.network.forward` and `backward`, which a test compares with it. It is written a second time
because it keeps the bits of each run alone, which the readable code does not, and because it allocates nothing: a step
of 128 runs of 64-50-10 with batches of 32 took 4.0 ms instead of 4.5 (one thread of a busy machine, torch 2.13).

Letters: R runs, B batch, I inputs, H hidden units, C classes, N samples.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mlpexp.engine.torch.layer_kernels import Kernel, Slot, make_kernel
from mlpexp.engine.torch.stacked_losses import make_stacked_loss
from mlpexp.nn.losses import LossFunction
from mlpexp.nn.network import NetworkSpec


class StackStep:
    """Forward, loss and, if gradients are given, backward for batches of one size.

    Args:
        networks: of each run; they differ in activations only.
        parameters: by name, (R, ...).
        inputs: (R, B, I), to be filled before each call; contiguous or one (B, I) expanded over the runs.
        loss: to measure, and to differentiate.
        gradients: where to write those of the parameters; None to go forward only.
    """

    def __init__(
        self,
        networks: Sequence[NetworkSpec],
        parameters: Mapping[str, Tensor],
        inputs: Tensor,
        loss: LossFunction,
        gradients: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._inputs = inputs
        self._kernels: list[Kernel] = []
        network = networks[0]
        x, x_gradient, overwrites_x = inputs, None, False
        for k in range(len(network.layers)):
            kernel = make_kernel(
                Slot(
                    layers=[own.layers[k] for own in networks],
                    parameters=network.of_layer(k, parameters),
                    gradients=None if gradients is None else network.of_layer(k, gradients),
                    x=x,
                    x_gradient=x_gradient,
                    overwrites_x=overwrites_x,
                )
            )
            self._kernels.append(kernel)
            x, x_gradient, overwrites_x = kernel.output, kernel.output_gradient, not kernel.reads_output
        self.logits = x
        self._loss = make_stacked_loss(loss, x, x_gradient)

    def gather(self, samples: Tensor, index: Tensor) -> None:
        """Fill the inputs with rows of `samples` (N, I); `index` is (R * B,)."""
        torch.index_select(samples, 0, index, out=self._inputs.view(-1, samples.shape[1]))

    def forward(self) -> None:
        """Write the logits."""
        for kernel in self._kernels:
            kernel.forward()

    def measure(self, targets: Tensor, negative_losses: Tensor, predictions: Tensor | None) -> None:
        """Write losses and predicted classes of the logits, see `StackedLoss.forward`."""
        self._loss.forward(targets, negative_losses, predictions)

    def backward(self, targets: Tensor, slopes: Tensor | None = None) -> None:
        """Write the gradients of the batch's mean loss, see `StackedLoss.backward`; `measure` has been called."""
        self._loss.backward(targets, slopes)
        for kernel in reversed(self._kernels):
            kernel.backward()
