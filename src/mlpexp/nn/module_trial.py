"""Facts about a user-defined network, found by building it and running it on a few samples before training."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlpexp.nn.torch_modules import Call
from mlpexp.nn.user_class import own_random_state
from mlpexp.nn.user_module import UserModule, apply, call, draws_of, tensors_of
from mlpexp.runtime.errors import UserError, described, first_line

TRIAL_SAMPLES = 3  # samples of the trial


class Facts(NamedTuple):
    """Facts about a module.

    Attributes:
        shapes, buffers: see `user_module`; by the module's own names, in its order.
        units: numbers that a forward pass computes for a sample.
        narrowest: size of the smallest tensor: a value of one sample, or a parameter.
        stack_obstacle: why a stack cannot compute it; None where it can.
    """

    shapes: dict[str, tuple[int, ...]]
    buffers: dict[str, tuple[int, ...]]
    units: int
    narrowest: int
    stack_obstacle: str | None


@lru_cache(maxsize=4096)
def facts(layer: UserModule) -> Facts:
    """The facts about a module, computed once.

    Raises:
        UserError: the module cannot be built, or mlpexp cannot train it.
    """
    with torch.inference_mode(False), torch.enable_grad():
        return _try_module(layer)


def _try_module(layer: UserModule) -> Facts:
    key = f"model._target_={layer.target}"
    module = layer.built(0)
    x = torch.randn(TRIAL_SAMPLES, layer.inputs, generator=torch.Generator().manual_seed(0))
    sizes: list[int] = []

    def record_size(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            sizes.append(output.numel() // TRIAL_SAMPLES)

    hooks = [submodule.register_forward_hook(record_size) for submodule in module.modules()]
    with own_random_state(0):
        before = torch.get_rng_state()
        try:
            evaluated = module.eval()(x)
            with recorded_calls(module):
                trained = module.train()(x)
        except Exception as error:
            raise UserError(f"{key}: its forward pass of {layer.inputs} features fails: {described(error)}") from error
        if not torch.equal(before, torch.get_rng_state()):
            raise UserError(
                f"{key} draws random numbers in its forward pass, which resumed and stacked runs would not repeat; use "
                "nn.Dropout, whose masks are functions of seed, epoch and step"
            )
    for hook in hooks:
        hook.remove()
    for output in (evaluated, trained):
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        if shape != (TRIAL_SAMPLES, layer.outputs):
            raise UserError(
                f"{key}: its output for {TRIAL_SAMPLES} samples is {shape}, but must be "
                f"{(TRIAL_SAMPLES, layer.outputs)}; name the argument of its constructor for this number num_outputs "
                "or num_classes"
            )
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not trainable or not trained.requires_grad:
        raise UserError(f"{key} has no parameters to train")
    gradients = torch.autograd.grad(trained.sum(), list(trainable.values()), allow_unused=True)
    unused = {name for name, gradient in zip(trainable, gradients, strict=True) if gradient is None}
    shapes = {name: tuple(parameter.shape) for name, parameter in trainable.items() if name not in unused}
    buffers = {name: tuple(tensor.shape) for name, tensor in module.named_parameters() if name not in shapes}
    persistent = module.state_dict()
    buffers |= {name: tuple(tensor.shape) for name, tensor in module.named_buffers() if name in persistent}
    _check_constants(layer, module, {*shapes, *buffers})
    narrowest = min([*sizes, *map(prod, shapes.values())])
    return Facts(shapes, buffers, sum(sizes), max(1, narrowest), _find_stack_obstacle(layer, shapes, buffers, x))


@contextmanager
def recorded_calls(module: nn.Module) -> Iterator[list[Call]]:
    """While the block runs, dropout layers draw no masks; their calls are recorded in the list."""
    draws = draws_of(module)
    calls: list[Call] = []
    draws.recorded_calls = calls
    try:
        yield calls
    finally:
        draws.recorded_calls = None


def _check_constants(layer: UserModule, module: nn.Module, saved_names: Collection[str]) -> None:
    """
    Raises:
        UserError: a buffer that no checkpoint holds depends on the seed, or has changed in the trial.
    """
    other_seed = tensors_of(layer.built(1))
    for name, values in tensors_of(module).items():
        if name not in saved_names and not torch.equal(values, other_seed[name]):
            raise UserError(
                f"model._target_={layer.target}: the buffer {name} is random or changes in training, but no checkpoint "
                "would hold it; register it as persistent, with float32 numbers"
            )


def _find_stack_obstacle(layer: UserModule, trained: Collection[str], fixed: Collection[str], x: Tensor) -> str | None:
    """Why `torch.func.vmap` cannot compute two runs; None where it gives what each gives alone."""
    module = layer.built(0).train()
    runs = [tensors_of(layer.built(seed)) for seed in (0, 1)]
    names = [*trained, *fixed]
    stacked = {name: torch.stack([run[name].detach() for run in runs]) for name in names}
    for name in trained:
        stacked[name].requires_grad_()
    try:
        with recorded_calls(module):
            stacked_outputs = apply(module, stacked, x.expand(2, *x.shape))
            torch.autograd.grad(stacked_outputs.sum(), [stacked[name] for name in trained])
            single_outputs = [apply(module, {name: run[name].detach().clone() for name in names}, x) for run in runs]
    except Exception as error:
        return f"torch.func.vmap cannot compute {layer.target}: {first_line(error)}"
    if not torch.allclose(stacked_outputs, torch.stack(single_outputs), rtol=1e-3, atol=1e-5):
        return f"torch.func.vmap computes {layer.target} differently from a run alone"
    return None


def batch_calls(layer: UserModule, size: int) -> list[Call]:
    """The calls of dropout layers in a training step with `size` samples."""
    module = layer.built(0).train()
    with torch.inference_mode(False), torch.no_grad(), recorded_calls(module) as calls:
        call(module, tensors_of(module), torch.zeros(size, layer.inputs))
    return calls
