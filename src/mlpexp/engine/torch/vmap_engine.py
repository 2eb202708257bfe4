"""Stacks of user-defined modules: the forward pass by `torch.func.vmap`, the rest as in `Engine`.

A run's bits depend neither on the number of runs nor on its place nor on the other runs. Alone it has the same numbers
to rounding. Two things make that so on a CPU. Products of matrices are those of `exact_products`. Elementwise functions
round the last few elements of a tensor in another way than the others, so that each stack has some rows more, whose
results are not used.

Letters: R runs, P rows with those that are not used, B batch, I inputs, C outputs.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod

import torch
from torch import Tensor

from mlpexp.engine.torch.engine import Engine
from mlpexp.engine.torch.exact_products import ExactProducts
from mlpexp.engine.torch.stack_activations import VECTOR
from mlpexp.engine.torch.stack_step import StackStep
from mlpexp.engine.torch.stacked_losses import make_stacked_loss
from mlpexp.nn.dropout_masks import Masks
from mlpexp.nn.losses import LossFunction
from mlpexp.nn.module_trial import batch_calls
from mlpexp.nn.user_module import UserModule, apply


class VmapEngine(Engine):
    """`Engine` for networks with a `user_module`, the same for all runs; arguments and attributes as there."""

    def _set_parameters(self, parameters: dict[str, Tensor]) -> None:
        num_unused = _unused_rows(self._module)
        self._rows = {name: _with_rows(values, num_unused) for name, values in parameters.items()}
        super()._set_parameters({name: rows[: self.num_runs] for name, rows in self._rows.items()})

    @property
    def _module(self) -> UserModule:
        module = self._networks[0].user_module
        assert module is not None, "this engine trains user-defined modules"
        return module

    def _training_step(self, samples: Tensor, size: int) -> StackStep:
        inputs = samples.new_zeros(self.num_runs + _unused_rows(self._module), size, samples.shape[1])
        count, seeds = self.num_runs, self._seeds
        return VmapStep(self._module, self._rows, inputs, self._loss, self._gradients, seeds, num_runs=count)

    def _evaluation_step(self, start: int, stop: int, parameters: Mapping[str, Tensor], inputs: Tensor) -> StackStep:
        num_unused = _unused_rows(self._module)
        rows = {name: _with_rows(values, num_unused) for name, values in parameters.items()}
        shared = inputs.stride(0) == 0
        inputs = inputs[:1].expand(len(inputs) + num_unused, -1, -1) if shared else _with_rows(inputs, num_unused)
        return VmapStep(self._module, rows, inputs, self._loss.without_smoothing, num_runs=stop - start)


class VmapStep(StackStep):
    """`StackStep` of a user's module.

    Args:
        rows: parameters and buffers by full name, (P, ...); training changes the buffers.
        inputs: (P, B, I).
        gradients: where to write those of the parameters, (R, ...); None to go forward only.
        seeds: of each run, for dropout.
        num_runs: R.
    """

    def __init__(
        self,
        module: UserModule,
        rows: Mapping[str, Tensor],
        inputs: Tensor,
        loss: LossFunction,
        gradients: Mapping[str, Tensor] | None = None,
        seeds: Sequence[int] = (),
        *,
        num_runs: int,
    ) -> None:
        count, size = num_runs, inputs.shape[1]
        self._inputs, self._count = inputs[:count], count
        self._all_inputs, self._gradients = inputs, gradients
        self._is_training = gradients is not None
        self._template = module.template(inputs.device)
        self._tensors = {name: rows[module.full_name(0, name)].detach() for name in (*module.shapes, *module.buffers)}
        outputs = inputs.new_zeros(len(inputs), size, module.outputs)
        self.logits = outputs[:count]
        self._output_gradient = torch.zeros_like(outputs) if self._is_training else None
        run_gradient = None if self._output_gradient is None else self._output_gradient[:count]
        self._loss = make_stacked_loss(loss, self.logits, run_gradient)
        self._masks: list[Masks] = []
        self._mask_values: list[Tensor] = []
        if self._is_training:
            self._trained = [self._tensors[name].requires_grad_() for name in module.shapes]
            self._names = [module.full_name(0, name) for name in module.shapes]
            if calls := batch_calls(module, size):
                if len(seeds) != count:
                    raise ValueError(f"dropout needs a seed for each of {count} runs, not {len(seeds)}")
                row_seeds = [*seeds, *[seeds[0]] * (len(inputs) - count)]
                for call, (rate, shape) in enumerate(calls):
                    values = inputs.new_empty(len(inputs), shape[0], prod(shape[1:]))
                    self._masks.append(Masks([rate] * len(inputs), row_seeds, call, values))
                    self._mask_values.append(values.view(len(inputs), *shape))

    def gather(self, samples: Tensor, index: Tensor) -> None:
        super().gather(samples, index)
        self._all_inputs[self._count :].copy_(self._inputs[0])

    def forward(self) -> None:
        module = self._template.train(self._is_training)
        with torch.set_grad_enabled(self._is_training), self._products():
            self._outputs = apply(module, self._tensors, self._all_inputs, self._mask_values or None)
        self.logits.copy_(self._outputs.detach()[: self._count])

    def backward(self, targets: Tensor, slopes: Tensor | None = None) -> None:
        assert self._gradients is not None
        self._loss.backward(targets, slopes)
        with self._products():
            gradients = torch.autograd.grad(self._outputs, self._trained, self._output_gradient)
        for name, gradient in zip(self._names, gradients, strict=True):
            self._gradients[name].copy_(gradient[: self._count])
        del self._outputs  # with its graph

    def _products(self) -> AbstractContextManager[object]:
        return ExactProducts() if self._all_inputs.device.type == "cpu" else nullcontext()


def _unused_rows(module: UserModule) -> int:
    """The number of unused rows: the last elements of every tensor, which are rounded differently, belong to them."""
    return -(-VECTOR // module.facts.narrowest)


def _with_rows(values: Tensor, count: int) -> Tensor:
    """A copy with `count` further rows, each equal to the first one."""
    return torch.cat([values, values[:1].expand(count, *values.shape[1:])])
