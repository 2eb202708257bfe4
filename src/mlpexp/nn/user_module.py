"""A user-defined network as one layer: any `nn.Module` that maps inputs (B, I) to outputs (B, C).

Its parameters that have gradients are those of the layer. Its other tensors of floating-point numbers (running
statistics, frozen parameters) are the layer's buffers: a stack has them for each run, and checkpoints hold them.
Remaining buffers (indices, masks) are constants that the constructor makes.

Letters: R runs (the axis may be absent), B batch, I inputs, C outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from mlpexp.nn.layers import LayerSpec
from mlpexp.nn.lazy_torch import Generator, Tensor, nn, torch
from mlpexp.nn.user_class import construct, load
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.lazy_import import LazyModule

if TYPE_CHECKING:
    from mlpexp.nn import module_trial, torch_modules
else:
    module_trial, torch_modules = LazyModule("mlpexp.nn.module_trial"), LazyModule("mlpexp.nn.torch_modules")

PREFIX = "module."


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
    def facts(self) -> module_trial.Facts:
        """
        Raises:
            UserError: it cannot be built, or mlpexp cannot train it.
        """
        return module_trial.facts(self)

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
        tensors = tensors_of(self.built(generator.initial_seed()))
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
        """A module that computes the forward pass with parameters that are passed to it."""
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
        return call(module, tensors, x)
    names = list(tensors)

    def single_run(values: Sequence[Tensor], x: Tensor, masks: Sequence[Tensor] | None) -> Tensor:
        return call(module, dict(zip(names, values, strict=True)), x, masks)

    in_dims = (0, 0, None if masks is None else 0)
    outputs: Tensor = torch.func.vmap(single_run, in_dims, randomness="error")(list(tensors.values()), x, masks)
    return outputs


def draws_of(module: nn.Module) -> torch_modules.Draws:
    """The masks of a module that `UserModule.module` has made."""
    draws: torch_modules.Draws = module.mlpexp_draws  # type: ignore[assignment]
    return draws


def call(module: nn.Module, tensors: Mapping[str, Tensor], x: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
    """The forward pass of one run with these tensors, (B, I) -> (B, C)."""
    draws = draws_of(module)
    draws.stack_masks = masks
    try:
        outputs: Tensor = torch.func.functional_call(module, dict(tensors), (x,))
        return outputs
    finally:
        draws.stack_masks = None


def _batch_norms(module: nn.Module) -> list[nn.Module]:
    return [submodule for submodule in module.modules() if isinstance(submodule, nn.modules.batchnorm._BatchNorm)]


def _use_running_statistics(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """A batch of one sample has no statistics: the running ones normalise it."""
    if module.training and len(inputs[0]) == 1:
        for norm in _batch_norms(module):
            norm.eval()


def _use_batch_statistics(module: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
    if module.training and len(inputs[0]) == 1:
        for norm in _batch_norms(module):
            norm.train()


@lru_cache(maxsize=64)
def _template(layer: UserModule, device: str) -> nn.Module:
    return layer.built(0).to(device)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _prepared(module: nn.Module, target: str) -> nn.Module:
    """The module with mlpexp's dropout, and without what it cannot train; changed in place.

    Raises:
        UserError: names what is not supported.
    """
    key = f"model._target_={target}"
    for name, submodule in module.named_modules():
        place = f"{name or 'it'} ({type(submodule).__name__})"
        if isinstance(submodule, nn.modules.dropout._DropoutNd) and (
            type(submodule) is not nn.Dropout or submodule.p >= 1
        ):
            raise UserError(f"{key}: {place} draws masks of its own; use nn.Dropout with a rate below 1")
        if isinstance(submodule, nn.RReLU):
            raise UserError(f"{key}: {place} draws random numbers; use another activation")
    for norm in _batch_norms(module):
        if norm.track_running_stats and norm.momentum is None:
            raise UserError(f"{key}: {type(norm).__name__} counts batches (momentum=None); give a momentum, e.g. 0.1")
        norm._buffers["num_batches_tracked"] = None
    names: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if (first_name := names.setdefault(id(parameter), name)) != name:
            raise UserError(
                f"{key}: {first_name} and {name} are one tensor, which stacks do not support; make them two"
            )
        if parameter.dtype != torch.float32:
            raise UserError(f"{key}: {name} is {parameter.dtype}; its parameters must be float32")
    for parent in module.modules():
        for name, buffer in parent._buffers.items():
            if buffer is not None and buffer.dtype != torch.float32:
                parent._non_persistent_buffers_set.add(name)  # a constant of the constructor
    module.mlpexp_draws = torch_modules.replace_dropouts(module)  # type: ignore[assignment]
    if _batch_norms(module):
        module.register_forward_pre_hook(_use_running_statistics)
        module.register_forward_hook(_use_batch_statistics)
    return module
