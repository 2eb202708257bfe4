"""What is known of a user-defined network before it is trained: found by building and trying it with a few samples."""

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

TRIED = 3  # samples of the trial


class Facts(NamedTuple):
    """What is known of a module from building and trying it.

    Attributes:
        shapes, buffers: see `user_module`; by the module's own names, in its order.
        units: numbers that a forward pass computes for a sample.
        narrowest: numbers in the smallest value for a sample, or the smallest parameter.
        alone: why a stack cannot compute it; None where it can.
    """

    shapes: dict[str, tuple[int, ...]]
    buffers: dict[str, tuple[int, ...]]
    units: int
    narrowest: int
    alone: str | None


@lru_cache(maxsize=4096)
def facts(layer: UserModule) -> Facts:
    """
    Raises:
        UserError: the module cannot be built, or not be trained here.
    """
    with torch.inference_mode(False), torch.enable_grad():
        return _tried(layer)


def _tried(layer: UserModule) -> Facts:
    key = f"model._target_={layer.target}"
    module = layer.built(0)
    x = torch.randn(TRIED, layer.inputs, generator=torch.Generator().manual_seed(0))
    sizes: list[int] = []

    def note(_: nn.Module, __: object, found: object) -> None:
        if isinstance(found, torch.Tensor):
            sizes.append(found.numel() // TRIED)

    hooks = [one.register_forward_hook(note) for one in module.modules()]
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
    for found in (evaluated, trained):
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        if shape != (TRIED, layer.outputs):
            raise UserError(
                f"{key}: its output for {TRIED} samples is {shape}, but must be {(TRIED, layer.outputs)}; name the "
                "argument of its constructor for this number num_outputs or num_classes"
            )
    trainable = {name: one for name, one in module.named_parameters() if one.requires_grad}
    if not trainable or not trained.requires_grad:
        raise UserError(f"{key} has no parameters to train")
    gradients = torch.autograd.grad(trained.sum(), list(trainable.values()), allow_unused=True)
    unused = {name for name, gradient in zip(trainable, gradients, strict=True) if gradient is None}
    shapes = {name: tuple(one.shape) for name, one in trainable.items() if name not in unused}
    buffers = {name: tuple(one.shape) for name, one in module.named_parameters() if name not in shapes}
    kept = module.state_dict()
    buffers |= {name: tuple(one.shape) for name, one in module.named_buffers() if name in kept}
    _check_constants(layer, module, {*shapes, *buffers})
    narrowest = min([*sizes, *map(prod, shapes.values())])
    return Facts(shapes, buffers, sum(sizes), max(1, narrowest), _no_stack(layer, shapes, buffers, x))


@contextmanager
def recorded_calls(module: nn.Module) -> Iterator[list[Call]]:
    """While it lasts, no masks are drawn, and the calls of dropout layers are noted."""
    draws = draws_of(module)
    found: list[Call] = []
    draws.seen = found
    try:
        yield found
    finally:
        draws.seen = None


def _check_constants(layer: UserModule, module: nn.Module, known: Collection[str]) -> None:
    """
    Raises:
        UserError: a buffer that no checkpoint holds depends on the seed, or has changed in the trial.
    """
    other = tensors_of(layer.built(1))
    for name, values in tensors_of(module).items():
        if name not in known and not torch.equal(values, other[name]):
            raise UserError(
                f"model._target_={layer.target}: the buffer {name} is random or changes in training, but no checkpoint "
                "would hold it; register it as persistent, with float32 numbers"
            )


def _no_stack(layer: UserModule, trained: Collection[str], fixed: Collection[str], x: Tensor) -> str | None:
    """Why `torch.func.vmap` cannot compute two runs; None where it gives what each gives alone."""
    module = layer.built(0).train()
    runs = [tensors_of(layer.built(seed)) for seed in (0, 1)]
    names = [*trained, *fixed]
    stacked = {name: torch.stack([run[name].detach() for run in runs]) for name in names}
    for name in trained:
        stacked[name].requires_grad_()
    try:
        with recorded_calls(module):
            found = apply(module, stacked, x.expand(2, *x.shape))
            torch.autograd.grad(found.sum(), [stacked[name] for name in trained])
            each = [apply(module, {name: run[name].detach().clone() for name in names}, x) for run in runs]
    except Exception as error:
        return f"torch.func.vmap cannot compute {layer.target}: {first_line(error)}"
    if not torch.allclose(found, torch.stack(each), rtol=1e-3, atol=1e-5):
        return f"torch.func.vmap computes {layer.target} differently from a run alone"
    return None


def batch_calls(layer: UserModule, size: int) -> list[Call]:
    """The calls of dropout in a training step with so many samples."""
    module = layer.built(0).train()
    with torch.inference_mode(False), torch.no_grad(), recorded_calls(module) as calls:
        call(module, tensors_of(module), torch.zeros(size, layer.inputs))
    return calls
