"""User-defined optimizers: one function is the update of a stack, and with R = 1 that of a run alone.

Letters: R runs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlpexp.extend.guard import Guard, decorator
from mlpexp.nn.optimizers import OPTIMIZERS, StackOptimizer, UpdateSettings
from mlpexp.nn.optimizers.torch_classes import evaluated, with_gradients
from mlpexp.nn.run_axis import broadcastable
from mlpexp.runtime.declared_options import Declared, DeclaredOption

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
    options = guard.options()
    _check_names(guard, keys, state, options)
    defaults = {key: KEYS[key] for key in keys} | {key: option.default for key, option in options.items()}
    rule = _Rule(
        update=_Update(guard, function, tuple(options)),
        keys=tuple(keys),
        state=tuple(state),
        defaults=defaults,
        decoupled_decay=decoupled_decay,
        is_adaptive=is_adaptive,
    )
    _try(guard, rule)
    cls = _stack_class(rule, _torch_class(rule), tuple(options))
    for each_class in (cls, cls.torch_class()):
        each_class.__name__ = each_class.__qualname__ = guard.name
    # one class for all values, which are settings of each run
    OPTIMIZERS.register(guard.name, cls, Declared(options, lambda values: cls))


def _check_names(
    guard: Guard, keys: Sequence[str], state: Sequence[str], options: Mapping[str, DeclaredOption]
) -> None:
    """Check the names that an optimizer declares.

    Raises:
        UserError: a key does not exist, a name is reserved, or an option is no number.
    """
    if unknown := [key for key in keys if key not in KEYS]:
        raise guard.error(f"reads optimizer.{unknown[0]}, which it cannot; choose of {', '.join(KEYS)}")
    if reserved := {"step", "lr"} & set(state):
        raise guard.error(f"has a state named {min(reserved)}, which is taken; choose another name")
    for key, option in options.items():
        if key in {*KEYS, "lr", "step", "beta1", "beta2"}:
            raise guard.error(f"has an option named {key}, which is taken; choose another name")
        if not isinstance(option.default, bool | int | float):
            raise guard.error(f"has the option {key}={option.default!r}; options of an optimizer are numbers")


class _Rule(NamedTuple):
    """The arguments of `optimizer`.

    Attributes:
        defaults: of the keys and of the options.
    """

    update: "_Update"
    keys: tuple[str, ...]
    state: tuple[str, ...]
    defaults: Mapping[str, Any]
    decoupled_decay: bool
    is_adaptive: bool | None


def _stack_class(
    rule: _Rule, single_run_class: type[torch.optim.Optimizer], options: Sequence[str]
) -> type[StackOptimizer]:
    """The optimizer of a stack.

    Args:
        single_run_class: the same for a run alone.
        options: names.
    """

    class UserOptimizer(StackOptimizer):
        keys = rule.keys
        defaults = rule.defaults
        state_names = rule.state
        counts_steps = True
        decoupled_decay = rule.decoupled_decay
        is_adaptive = rule.is_adaptive

        def __init__(self, settings: UpdateSettings, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
            super().__init__(settings, parameters, gradients)
            self.state = {name: self._zeros() for name in self.state_names}
            self._values = {key: self._setting(key) for key in self.defaults}

        @classmethod
        def arguments(cls, settings: Any) -> dict[str, Any]:
            values = {key: settings.options.get(key, rule.defaults[key]) for key in options}
            return super().arguments(settings) | values

        @classmethod
        def torch_class(cls) -> type[torch.optim.Optimizer]:
            return single_run_class

        def _update(self, i: int, parameter: Tensor, gradient: Tensor) -> None:
            if i + 1 == len(self._parameters):  # all at once, when the decay of the last one has been applied
                rates = [self._rate(i) for i in range(len(self._parameters))]
                rule.update(self._parameters, self._gradients, self.state, rates, self._values, self.own_steps)

    return UserOptimizer


def _torch_class(rule: _Rule) -> type[torch.optim.Optimizer]:
    """The optimizer of a run alone, in torch's form."""

    class UserOptimizer(torch.optim.Optimizer):
        def __init__(self, params: Any, lr: float = 0.1, weight_decay: float = 0.0, **settings: Any) -> None:
            super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **settings})

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            loss = evaluated(closure)
            rows = list(with_gradients(self.param_groups))
            for group, p, gradient in rows:
                if not self.state[p]:
                    self.state[p] = {"step": torch.tensor(0.0)} | {key: torch.zeros_like(p) for key in rule.state}
                self.state[p]["step"] += 1
                if group["weight_decay"] and rule.decoupled_decay:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                elif group["weight_decay"]:
                    gradient.add_(p, alpha=group["weight_decay"])
            if rows:
                group, parameter, _ = rows[0]
                rule.update(
                    [p.detach().unsqueeze(0) for _, p, _ in rows],
                    [gradient.unsqueeze(0) for _, _, gradient in rows],
                    {key: [self.state[p][key].unsqueeze(0) for _, p, _ in rows] for key in rule.state},
                    [torch.tensor([group["lr"]], dtype=torch.float64) for group, _, _ in rows],
                    {key: torch.tensor([group[key]], dtype=torch.float64) for key in rule.defaults},
                    int(self.state[parameter]["step"]),
                )
            return loss

    return UserOptimizer


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
        settings: Mapping[str, Tensor],
        step: int,
    ) -> None:
        """
        Args:
            rates: of each parameter, (R,) float64.
            settings: by key, (R,) or (R, 2) float64.
        """
        numbers = {"lr": list(rates)}
        for key, values in settings.items():
            if key == "betas":
                numbers |= {f"beta{k + 1}": [values[:, k]] * len(parameters) for k in range(2)}
            else:
                numbers[key] = [values] * len(parameters)
        hyperparameters: dict[str, Any] = {
            key: [broadcastable(number.to(p), p) for number, p in zip(values, parameters, strict=True)]
            for key, values in numbers.items()
        }
        # the function gets copies of the lists, so that changes of them are detected
        parameter_list, state_lists = list(parameters), {key: list(values) for key, values in state.items()}
        options = {key: hyperparameters[key] for key in self._options}
        call = partial(self._function, **options) if options else self._function
        self._guard.call(call, parameter_list, list(gradients), state_lists, hyperparameters | {"step": step})
        if state_lists.keys() != state.keys():
            name = sorted(state_lists.keys() ^ state.keys())[0]
            raise self._guard.error(f"adds or removes the state {name!r}; name it in optimizer(state=[...])")
        pairs = [(parameters, parameter_list), *((values, state_lists[key]) for key, values in state.items())]
        if not all(_is_same_list(before, after) for before, after in pairs):
            raise self._guard.error(
                "assigns new tensors to the lists of parameters or state; change the tensors in place, e.g. p.sub_(...)"
            )


def _is_same_list(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    return len(before) == len(after) and all(a is b for a, b in zip(before, after, strict=True))


def _try(guard: Guard, rule: _Rule) -> None:
    """Three steps of two runs, and of one of them alone.

    Raises:
        UserError: the parameters do not change, are not finite, or depend on the other run.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 4), (2, 3))
    starts = [torch.randn(shape, generator=generator) for shape in shapes]
    steps = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2)]
    steps.insert(1, [torch.zeros(shape) for shape in shapes])
    results = []
    for rows in (slice(0, 2), slice(1, 2)):
        parameters = [start[rows].clone() for start in starts]
        state = {name: [torch.zeros_like(p) for p in parameters] for name in rule.state}
        runs = len(parameters[0])
        settings = {key: torch.tensor([value] * runs, dtype=torch.float64) for key, value in rule.defaults.items()}
        rates = [torch.tensor([0.1] * runs, dtype=torch.float64)] * 2
        with torch.no_grad():
            for step, gradients in enumerate(steps, 1):
                rule.update(parameters, [g[rows].clone() for g in gradients], state, rates, settings, step)
        for p in parameters:
            guard.finite(p, "for finite gradients, some of them zero")
        results.append([p[-1] for p in parameters])
    if all(torch.equal(p, start[1]) for p, start in zip(results[1], starts, strict=True)):
        raise guard.error("does not change the parameters; change them in place, e.g. p.sub_(lr * g)")
    if not all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*results, strict=True)):
        raise guard.error(
            "mixes runs: one of two runs gets other parameters alone; compute over the axes after the first"
        )
