"""A user-defined network as one layer: any `nn.Module` that maps inputs (B, I) to outputs (B, C).

Its parameters that have gradients are those of the layer. Its other tensors of floating-point numbers (running
statistics, frozen parameters) are the layer's buffers: a stack has them for each run, and checkpoints hold them.
Remaining buffers (indices, masks) are constants that the constructor makes.

Letters: R runs (the axis may be absent), B batch, I inputs, C outputs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from mlpexp.nn.layers import LayerSpec
from mlpexp.nn.lazy_torch import Generator, Tensor, nn, torch
from mlpexp.nn.user_class import construct, load, own_random_state
from mlpexp.runtime.errors import UserError, described, first_line
from mlpexp.runtime.lazy_import import LazyModule

if TYPE_CHECKING:
    from mlpexp.nn import torch_modules
else:
    torch_modules = LazyModule("mlpexp.nn.torch_modules")

PREFIX = "module."
TRIED = 3  # samples of the trial


class Facts(NamedTuple):
    """What is known of a module from building and trying it.

    Attributes:
        shapes, buffers: see the module's docstring; by the module's own names, in its order.
        units: numbers that a forward pass computes for a sample.
        narrowest: numbers in the smallest value for a sample, or the smallest parameter.
        alone: why a stack cannot compute it; None where it can.
    """

    shapes: dict[str, tuple[int, ...]]
    buffers: dict[str, tuple[int, ...]]
    units: int
    narrowest: int
    alone: str | None


@dataclass(frozen=True)
class UserModule(LayerSpec):
    """A whole network.

    Attributes:
        target: `module.Class`.
        arguments: its own, as JSON.
        source: the digest of its source.
    """

    target: str
    arguments: str
    source: str
    inputs: int
    outputs: int
    group: ClassVar[str] = "module"

    @property
    def facts(self) -> Facts:
        """
        Raises:
            UserError: it cannot be built, or not be trained here.
        """
        return _facts(self)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.facts.shapes

    @property
    def buffers(self) -> dict[str, tuple[int, ...]]:
        return self.facts.buffers

    @property
    def matrices(self) -> tuple[str, ...]:
        return tuple(name for name, shape in self.shapes.items() if len(shape) == 2)

    def full_name(self, number: int, name: str) -> str:
        return PREFIX + name

    def initialise_(self, parameters: Mapping[str, Tensor], generator: Generator) -> None:
        """The values that the module's constructor draws with the generator's seed."""
        tensors = _tensors(self.built(generator.initial_seed()))
        with torch.no_grad():
            for name, values in parameters.items():
                values.copy_(tensors[name])

    def module(self) -> nn.Module:
        return self.built(0)

    def forward(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """As in an evaluation."""
        return apply(self.template(x.device).eval(), parameters, x)

    def input_gradient(self, parameters: Mapping[str, Tensor], x: Tensor, h: Tensor, gradient: Tensor) -> Tensor:
        raise NotImplementedError("a module of the user's has no derivative by hand")

    def template(self, device: torch.device | None = None) -> nn.Module:
        """A module that gives the forward pass; its own parameters are not used."""
        return _template(self, str(device or "cpu"))

    def built(self, seed: int) -> nn.Module:
        """The module with the initial values of a seed.

        Raises:
            UserError: it cannot be built.
        """
        cls, _ = load(self.target, recorded=self.source)
        with torch.inference_mode(False):
            module = construct(cls, self.target, self.arguments, (self.inputs, self.outputs), seed)
            return _prepared(module, self.target)


def apply(module: nn.Module, tensors: Mapping[str, Tensor], x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
    """The forward pass of a module with other tensors: those of one run and x (B, I), or of a stack and x (R, B, I).

    Args:
        masks: of its dropout layers in a training step of a stack, (R, ...), in the order of their calls.
    """
    if x.ndim == 2:
        return _call(module, tensors, x)
    names = list(tensors)

    def one(values: Sequence[Tensor], x: Tensor, masks: Sequence[Tensor] | None) -> Tensor:
        return _call(module, dict(zip(names, values, strict=True)), x, masks)

    in_dims = (0, 0, None if masks is None else 0)
    found: Tensor = torch.func.vmap(one, in_dims, randomness="error")(list(tensors.values()), x, masks)
    return found


def draws_of(module: nn.Module) -> torch_modules.Draws:
    """The masks of a module that `UserModule.module` has made."""
    found: torch_modules.Draws = module.mlpexp_draws  # type: ignore[assignment]
    return found


def _call(module: nn.Module, tensors: Mapping[str, Tensor], x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
    draws = draws_of(module)
    draws.given = masks
    try:
        found: Tensor = torch.func.functional_call(module, dict(tensors), (x,))
        return found
    finally:
        draws.given = None


def _norms(module: nn.Module) -> list[nn.Module]:
    return [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]


def _before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """A batch of one sample has no statistics of its own: it is normalised by the running ones."""
    if module.training and len(inputs[0]) == 1:
        for one in _norms(module):
            one.eval()


def _after(module: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
    if module.training and len(inputs[0]) == 1:
        for one in _norms(module):
            one.train()


@lru_cache(maxsize=64)
def _template(layer: UserModule, device: str) -> nn.Module:
    return layer.built(0).to(device)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _prepared(module: nn.Module, target: str) -> nn.Module:
    """The module with mlpexp's dropout, and without what it cannot train; changed in place.

    Raises:
        UserError: names what is not supported.
    """
    key = f"model._target_={target}"
    for name, one in module.named_modules():
        place = f"{name or 'it'} ({type(one).__name__})"
        if isinstance(one, nn.modules.dropout._DropoutNd) and (type(one) is not nn.Dropout or one.p >= 1):
            raise UserError(f"{key}: {place} draws masks of its own; use nn.Dropout with a rate below 1")
        if isinstance(one, nn.RReLU):
            raise UserError(f"{key}: {place} draws random numbers; use another activation")
    for one in _norms(module):
        if one.track_running_stats and one.momentum is None:
            raise UserError(f"{key}: {type(one).__name__} counts batches (momentum=None); give a momentum, e.g. 0.1")
        one._buffers["num_batches_tracked"] = None
    names: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if (other := names.setdefault(id(parameter), name)) != name:
            raise UserError(f"{key}: {other} and {name} are one tensor, which stacks do not support; make them two")
        if parameter.dtype != torch.float32:
            raise UserError(f"{key}: {name} is {parameter.dtype}; its parameters must be float32")
    for parent in module.modules():
        for name, buffer in parent._buffers.items():
            if buffer is not None and buffer.dtype != torch.float32:
                parent._non_persistent_buffers_set.add(name)  # a constant of the constructor
    module.mlpexp_draws = torch_modules.replace_dropouts(module)  # type: ignore[assignment]
    if _norms(module):
        module.register_forward_pre_hook(_before)
        module.register_forward_hook(_after)
    return module


@lru_cache(maxsize=4096)
def _facts(layer: UserModule) -> Facts:
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
def recorded_calls(module: nn.Module) -> Iterator[list[torch_modules.Call]]:
    """While it lasts, no masks are drawn, and the calls of dropout layers are noted."""
    draws = draws_of(module)
    found: list[torch_modules.Call] = []
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
    other = _tensors(layer.built(1))
    for name, values in _tensors(module).items():
        if name not in known and not torch.equal(values, other[name]):
            raise UserError(
                f"model._target_={layer.target}: the buffer {name} is random or changes in training, but no checkpoint "
                "would hold it; register it as persistent, with float32 numbers"
            )


def _no_stack(layer: UserModule, trained: Collection[str], fixed: Collection[str], x: Tensor) -> str | None:
    """Why `torch.func.vmap` cannot compute two runs; None where it gives what each gives alone."""
    module = layer.built(0).train()
    runs = [_tensors(layer.built(seed)) for seed in (0, 1)]
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


def batch_calls(layer: UserModule, size: int) -> list[torch_modules.Call]:
    """The calls of dropout in a training step with so many samples."""
    module = layer.built(0).train()
    with torch.inference_mode(False), torch.no_grad(), recorded_calls(module) as calls:
        _call(module, _tensors(module), torch.zeros(size, layer.inputs))
    return calls
