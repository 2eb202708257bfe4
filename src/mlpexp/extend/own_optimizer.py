"""User-defined optimizers: one function is the update of a stack, and with R = 1 that of a run alone.

Letters: R runs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mlpexp.extend.guard import Guard, decorator
from mlpexp.nn.optimizers import OPTIMIZERS, StackOptimizer, UpdateSettings
from mlpexp.nn.optimizers.torch_classes import evaluated, with_gradients
from mlpexp.nn.run_axis import broadcastable
from mlpexp.runtime.declared_options import Declared

KEYS = {"momentum": 0.0, "nesterov": 0.0, "betas": (0.9, 0.999), "eps": 1e-8, "alpha": 0.99}


@decorator
def optimizer(
    function: Callable[..., None],
    /,
    *,
    name: str | None = None,
    state: Sequence[str] = (),
    keys: Sequence[str] = (),
    decoupled_decay: bool = False,
    is_adaptive: bool | None = None,
) -> None:
    """Register an optimizer, `optimizer.name=NAME`. Weight decay, clipping and schedules are applied around it.

    Args:
        function: (parameters, gradients, state, hyperparameters) changes parameters and state, each (R, ...), in place.
            Of `state` there is by name one tensor for each parameter. `hyperparameters` has `lr` and the keys, for each
            parameter a tensor (R, 1, ...) that multiplies it, and `step`, an integer from 1.
        state: names of its state, for each a tensor beside each parameter, zeros at first.
        keys: of the `optimizer` group that it reads: momentum, nesterov, betas, eps, alpha. The pair betas comes as
            `beta1` and `beta2`.
        decoupled_decay: weight decay shrinks the parameters, not through the gradient.
        is_adaptive: the size of a step does not follow that of the gradient, for muP; None: muP is refused.

    Raises:
        UserError: it mixes runs, does not change its arguments in place, or gives NaN for finite gradients.
    """
    guard = Guard("optimizer", name, function)
    if unknown := [key for key in keys if key not in KEYS]:
        raise guard.error(f"reads optimizer.{unknown[0]}, which it cannot; choose of {', '.join(KEYS)}")
    if reserved := {"step", "lr"} & set(state):
        raise guard.error(f"has a state named {min(reserved)}, which is taken; choose another name")
    own_options = guard.options()
    options = {key: option.default for key, option in own_options.items()}
    for key, value in options.items():
        if key in {*KEYS, "lr", "step", "beta1", "beta2"}:
            raise guard.error(f"has an option named {key}, which is taken; choose another name")
        if not isinstance(value, bool | int | float):
            raise guard.error(f"has the option {key}={value!r}; options of an optimizer are numbers")
    update = _Update(guard, function, tuple(options))
    defaults_ = {key: KEYS[key] for key in keys} | options
    _try(guard, update, state, defaults_)
    own_keys, own_state, decays, adapts = tuple(keys), tuple(state), decoupled_decay, is_adaptive

    class Own(StackOptimizer):
        keys = own_keys
        defaults = defaults_
        state_names = own_state
        counts_steps = True
        decoupled_decay = decays
        is_adaptive = adapts

        def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
            super().__init__(settings, parameters, gradients)
            self.state = {name: self._zeros() for name in self.state_names}
            self._given = {key: self._setting(key) for key in self.defaults}

        @classmethod
        def arguments(cls, settings: Any) -> dict[str, Any]:
            return super().arguments(settings) | {key: settings.options.get(key, options[key]) for key in options}

        @classmethod
        def torch_class(cls) -> type[torch.optim.Optimizer]:
            return Alone

        def _update(self, i: int, parameter: Tensor, gradient: Tensor) -> None:
            if i + 1 == len(self._parameters):  # all at once, when the decay of the last one has been applied
                rates = [self._rate(i) for i in range(len(self._parameters))]
                update(self._parameters, self._gradients, self.state, rates, self._given, self.own_steps)

    class Alone(torch.optim.Optimizer):
        """The same for one run, in torch's form."""

        def __init__(self, params: Any, lr: float = 0.1, weight_decay: float = 0.0, **given: Any) -> None:
            super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **given})

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            loss = evaluated(closure)
            each = list(with_gradients(self.param_groups))
            for group, p, gradient in each:
                if not self.state[p]:
                    self.state[p] = {"step": torch.tensor(0.0)} | {key: torch.zeros_like(p) for key in own_state}
                self.state[p]["step"] += 1
                if group["weight_decay"] and decays:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                elif group["weight_decay"]:
                    gradient.add_(p, alpha=group["weight_decay"])
            if each:
                first, parameter, _ = each[0]
                update(
                    [p.detach().unsqueeze(0) for _, p, _ in each],
                    [gradient.unsqueeze(0) for _, _, gradient in each],
                    {key: [self.state[p][key].unsqueeze(0) for _, p, _ in each] for key in own_state},
                    [torch.tensor([group["lr"]], dtype=torch.float64) for group, _, _ in each],
                    {key: torch.tensor([first[key]], dtype=torch.float64) for key in defaults_},
                    int(self.state[parameter]["step"]),
                )
            return loss

    for cls in (Own, Alone):
        cls.__name__ = cls.__qualname__ = guard.name
    # one class for all values, which are settings of each run
    OPTIMIZERS.register(guard.name, Own, Declared(own_options, lambda values: Own))


class _Update:
    """Calls the function with hyperparameters in the shape of the parameters, and checks what it did."""

    def __init__(self, guard: Guard, function: Callable[..., None], options: Sequence[str]) -> None:
        self._guard, self._function, self._options = guard, function, options

    def __call__(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        state: Mapping[str, Sequence[Tensor]],
        rates: Sequence[Tensor],
        given: Mapping[str, Tensor],
        step: int,
    ) -> None:
        """
        Args:
            rates: of each parameter, (R,) float64.
            given: by key, (R,) or (R, 2) float64.
        """
        numbers = {"lr": list(rates)}
        for key, values in given.items():
            if key == "betas":
                numbers |= {f"beta{k + 1}": [values[:, k]] * len(parameters) for k in range(2)}
            else:
                numbers[key] = [values] * len(parameters)
        hyperparameters: dict[str, Any] = {
            key: [broadcastable(each.to(p), p) for each, p in zip(values, parameters, strict=True)]
            for key, values in numbers.items()
        }
        own, own_state = list(parameters), {key: list(values) for key, values in state.items()}
        by_name = {key: hyperparameters[key] for key in self._options}
        call = partial(self._function, **by_name) if by_name else self._function
        self._guard.call(call, own, list(gradients), own_state, hyperparameters | {"step": step})
        kept = all(a is b for a, b in zip(own, parameters, strict=False)) and len(own) == len(parameters)
        if own_state.keys() != state.keys():
            added = sorted(own_state.keys() ^ state.keys())[0]
            raise self._guard.error(f"adds or removes the state {added!r}; name it in optimizer(state=[...])")
        kept = kept and all(
            len(values) == len(own_state[key]) and all(a is b for a, b in zip(values, own_state[key], strict=True))
            for key, values in state.items()
        )
        if not kept:
            raise self._guard.error(
                "assigns new tensors to the lists of parameters or state; change the tensors in place, e.g. p.sub_(...)"
            )


def _try(guard: Guard, update: _Update, state: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Three steps of two runs, and of one of them alone."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 4), (2, 3))
    starts = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2)]
    gradients.insert(1, [torch.zeros(shape) for shape in shapes])
    found = []
    for rows in (slice(0, 2), slice(1, 2)):
        parameters = [start[rows].clone() for start in starts]
        own = {name: [torch.zeros_like(p) for p in parameters] for name in state}
        runs = len(parameters[0])
        given = {key: torch.tensor([value] * runs, dtype=torch.float64) for key, value in settings.items()}
        rates = [torch.tensor([0.1] * runs, dtype=torch.float64)] * 2
        with torch.no_grad():
            for step, each in enumerate(gradients, 1):
                update(parameters, [g[rows].clone() for g in each], own, rates, given, step)
        for p in parameters:
            guard.finite(p, "for finite gradients, some of them zero")
        found.append([p[-1] for p in parameters])
    if all(torch.equal(p, start[1]) for p, start in zip(found[1], starts, strict=True)):
        raise guard.error("does not change the parameters; change them in place, e.g. p.sub_(lr * g)")
    if not all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*found, strict=True)):
        raise guard.error(
            "mixes runs: one of two runs gets other parameters alone; compute over the axes after the first"
        )
