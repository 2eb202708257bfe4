"""One step of a stack at one batch size: buffers and views made once.

The same computation as `nn.network.forward` and `backward`, which a test compares with it. It is written a second time
because it keeps the bits of each run alone, which the readable code does not, and because it allocates nothing: a step
of 128 runs of 64-50-10 with batches of 32 took 4.0 ms instead of 4.5 (one thread of a busy machine, torch 2.13).

Letters: R runs, B batch, I inputs, H hidden units, C classes, N samples.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mlpexp.engine.torch.layer_kernels import AddKernel, DropoutKernel, Kernel, make_kernel
from mlpexp.engine.torch.slot import Slot
from mlpexp.engine.torch.stacked_losses import make_stacked_loss
from mlpexp.nn.layers import Add
from mlpexp.nn.losses import LossFunction
from mlpexp.nn.network import NetworkSpec


class StackStep:
    """Forward, loss and, if gradients are given, backward for batches of one size.

    Args:
        networks: of each run; they differ in activations only.
        parameters: by name, (R, ...).
        inputs: (R, B, I), to be filled before each call; contiguous or one (B, I) expanded over the runs.
        loss: to measure, and to differentiate.
        gradients: where to write those of the parameters; None to go forward only, as in an evaluation.
        seeds: of each run, for dropout.
    """

    def __init__(
        self,
        networks: Sequence[NetworkSpec],
        parameters: Mapping[str, Tensor],
        inputs: Tensor,
        loss: LossFunction,
        gradients: Mapping[str, Tensor] | None = None,
        seeds: Sequence[int] = (),
    ) -> None:
        self._inputs = inputs
        network = networks[0]
        kernels: list[Kernel] = []
        values: list[Tensor] = [inputs]
        value_gradients: list[Tensor | None] = [None]  # of each value
        overwrites_x = False
        for k, layer in enumerate(network.layers):
            kernel = make_kernel(
                Slot(
                    layers=[run_network.layers[k] for run_network in networks],
                    parameters=network.layer_tensors(k, parameters),
                    gradients=None if gradients is None else network.layer_tensors(k, gradients),
                    x=values[k],
                    x_gradient=value_gradients[k],
                    skip=values[layer.source] if isinstance(layer, Add) else None,
                    seeds=seeds,
                    overwrites_x=overwrites_x and k not in network.sources,
                )
            )
            kernels.append(kernel)
            values.append(kernel.output)
            value_gradients.append(kernel.output_gradient)
            overwrites_x = not kernel.reads_output
        self._masks = [kernel.masks for kernel in kernels if isinstance(kernel, DropoutKernel) and kernel.masks]
        self._forward = [kernel.forward for kernel in kernels]
        self._backward = _backward(network, kernels, value_gradients)
        self.logits = values[-1]
        self._loss = make_stacked_loss(loss, self.logits, value_gradients[-1])

    def gather(self, samples: Tensor, index: Tensor) -> None:
        """Fill the inputs with rows of `samples` (N, I); `index` is (R * B,)."""
        torch.index_select(samples, 0, index, out=self._inputs.view(-1, samples.shape[1]))

    def begin_epoch(self, epoch: int) -> None:
        """Prepare the masks of an epoch, which `draw` does, too, but not where its work is captured."""
        for masks in self._masks:
            masks.begin_epoch(epoch)

    def draw(self, epoch: int, step: int) -> None:
        """Draw the masks of dropout for a training step, counted from 0 within its epoch."""
        for masks in self._masks:
            masks.draw(epoch, step)

    def forward(self) -> None:
        """Write the logits."""
        for forward in self._forward:
            forward()

    def measure(self, targets: Tensor, negative_losses: Tensor, predictions: Tensor | None) -> None:
        """Write losses and predicted classes of the logits, see `StackedLoss.forward`."""
        self._loss.forward(targets, negative_losses, predictions)

    def backward(self, targets: Tensor, slopes: Tensor | None = None) -> None:
        """Write the gradients of the batch's mean loss, see `StackedLoss.backward`; `measure` has been called."""
        self._loss.backward(targets, slopes)
        for backward in self._backward:
            backward()


def _backward(
    network: NetworkSpec, kernels: Sequence[Kernel], value_gradients: Sequence[Tensor | None]
) -> list[Callable[[], Any]]:
    """The backward pass in its order, from the logits to the inputs."""
    steps: list[Callable[[], Any]] = []
    skipped: dict[int, Tensor | None] = {}
    for k in reversed(range(len(kernels))):
        layer, kernel, gradient = network.layers[k], kernels[k], value_gradients[k]
        steps.append(kernel.backward)
        if isinstance(layer, Add) and isinstance(kernel, AddKernel):
            skipped[layer.source] = kernel.skip_gradient
        if (skip_gradient := skipped.get(k)) is not None and gradient is not None:
            steps.append(partial(gradient.add_, skip_gradient))
    return steps
