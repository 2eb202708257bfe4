"""User-defined losses, metrics and measures.

Letters: R runs, B batch, M = R * B or B samples, n samples of a part of the data, C outputs.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from mlpexp.extend.guard import Guard, decorator
from mlpexp.nn.losses import BOTH, LOSSES, Loss, Task
from mlpexp.nn.measures import MEASURES, Probe
from mlpexp.nn.metrics import METRICS, Metric
from mlpexp.nn.outcomes import Outcomes


@decorator
def loss(
    function: Callable[..., Tensor],
    /,
    *,
    name: str | None = None,
    task: Task | None = None,
    unit: str | None = None,
    power: int = 0,
) -> None:
    """Register a loss, `loss.name=NAME`; its gradient is autograd's.

    Args:
        function: (logits or values (M, C), targets (M, C), one-hot for classes, both read-only) -> the loss of each
            sample, (M,).
        task: for which it is defined; by default both.
        unit: for axes and tables; by default its name.
        power: of the target's unit in the unit of the loss, e.g. 2 for squared errors.

    Raises:
        UserError: a sample's loss depends on other samples, an argument is changed, or it returns another shape,
            another type, or NaN.
    """
    guard = Guard("loss", name, function)
    tasks = BOTH if task is None else (task,)
    guard.register(
        LOSSES, lambda bind: _loss(guard, bind(function), tasks, guard.name if unit is None else unit, power)
    )


def _loss(guard: Guard, function: Callable[..., Tensor], tasks: tuple[Task, ...], unit: str, power: int) -> Loss:
    def samples(outputs: Tensor, targets: Tensor) -> Tensor:
        """(M, C), (M, C) -> (M,)."""
        return guard.checked(guard.call(function, outputs, targets), outputs.shape[:1], outputs.dtype)

    def by_hand(outputs: Tensor, targets: Tensor) -> Tensor:
        """(R, B, C) -> (R, B); the run axis may be absent."""
        shape = outputs.shape
        flat = samples(outputs.reshape(-1, shape[-1]), targets.reshape(-1, shape[-1]))
        return flat.reshape(shape[:-1])

    def gradient(outputs: Tensor, targets: Tensor) -> Tensor:
        missing = "has no gradient: its result does not depend on the outputs for autograd"
        return guard.gradient(lambda leaf: by_hand(leaf, targets.detach()), outputs, missing)

    for defined in tasks:
        _try_loss(guard, samples, gradient, defined)
    return Loss(
        unit=unit,
        samples=lambda outputs, targets, settings: samples(outputs, settings.dense(targets, outputs)),
        by_hand=lambda outputs, targets, _: by_hand(outputs, targets),
        gradient=lambda outputs, targets, _: gradient(outputs, targets),
        tasks=tasks,
        power=power,
    )


def _try_loss(
    guard: Guard,
    samples: Callable[[Tensor, Tensor], Tensor],
    gradient: Callable[[Tensor, Tensor], Tensor],
    task: Task,
) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = 2 * torch.randn(6, 3, generator=generator)
    targets = torch.randn(6, 3, generator=generator)
    if task == "classification":
        targets = torch.eye(3)[targets.argmax(-1)]
    condition = f"for outputs from {outputs.min():.1f} to {outputs.max():.1f} in a {task}"
    with guard.read_only(outputs, targets):
        losses = guard.finite(samples(outputs, targets), condition)
    if not torch.allclose(samples(outputs[2:4], targets[2:4]), losses[2:4], rtol=1e-4, atol=1e-6):
        raise guard.error("gives a sample another loss beside other samples; return the loss of each sample, (M,)")
    guard.finite(gradient(outputs, targets), f"as a derivative {condition}")


@decorator
def metric(
    function: Callable[..., Tensor],
    /,
    *,
    name: str | None = None,
    higher_is_better: bool,
    predictions: Literal["classes", "outputs"] = "outputs",
    task: Task = "classification",
    label: str | None = None,
    unit: str = "",
    bounded: bool = False,
) -> None:
    """Register a metric, `metrics=[NAME]` and `monitor=val/NAME`.

    Args:
        function: (predictions, targets: classes (R, n) or values (R, n, C)) of all samples of a part of the data,
            read-only -> (R,).
        predictions: what the function gets beside the targets: predicted classes (R, n) int64, or outputs (R, n, C)
            float64. In a regression outputs and targets are in units of the target, less its mean.
        label, unit: for axes and tables.
        bounded: its values lie in [0, 1].

    Raises:
        UserError: it returns another shape or type, changes an argument, or gives a run other values beside others.
    """
    guard = Guard("metric", name, function)

    def value(predicted: Tensor, targets: Tensor) -> Tensor:
        with guard.read_only(predicted, targets):
            result = guard.checked(guard.call(function, predicted, targets), predicted.shape[:1])
        return result.double()

    def of_all_samples(outcomes: Outcomes) -> Tensor:
        predicted = outcomes.classes() if predictions == "classes" else outcomes.logits()
        targets = outcomes.labels
        alone = outcomes.losses.ndim == 1
        axes = 1 + targets.is_floating_point()  # beside that of the runs
        if targets.is_floating_point():
            scale = 1.0 if outcomes.scale is None else outcomes.scale.unsqueeze(-2)
            predicted, targets = predicted * scale, targets.double() * scale
        if alone:
            predicted = predicted.unsqueeze(0)
        values = value(predicted, targets.expand(len(predicted), *targets.shape[-axes:]))
        return values.squeeze(0) if alone else values

    _try_metric(guard, value, classes=predictions == "classes", task=task)
    METRICS.register(
        guard.name,
        Metric(
            label=guard.name if label is None else label,
            unit=unit,
            higher_is_better=higher_is_better,
            of_all_samples=of_all_samples,
            recorded=False,
            tasks=(task,),
            needs_outputs=predictions == "outputs",
            bounded=bounded,
        ),
    )


def _try_metric(guard: Guard, value: Callable[[Tensor, Tensor], Tensor], *, classes: bool, task: Task) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(2, 12, 3, generator=generator, dtype=torch.float64)
    if task == "classification":
        targets = torch.randint(0, 3, (2, 12), generator=generator)
    elif classes:
        raise guard.error("is for a regression, which predicts no classes; leave predictions='classes' out")
    else:
        targets = outputs + torch.randn(2, 12, 3, generator=generator, dtype=torch.float64)
    predicted = outputs.argmax(-1) if classes else outputs
    values = value(predicted, targets)
    if not torch.allclose(value(predicted[1:], targets[1:]), values[1:], equal_nan=True):
        raise guard.error("gives a run another value beside other runs; compute over the axes after the first")


@decorator
def measure(function: Callable[[Probe], Tensor], /, *, name: str | None = None) -> None:
    """Register a measure of the networks after each epoch, `diagnostics=[NAME]`: the column train/NAME.

    Args:
        function: a probe, read-only -> (R,).
    """
    guard = Guard("measure", name, function)

    def checked(probe: Probe) -> Tensor:
        with guard.read_only(*probe.parameters.values(), *probe.initial.values(), probe.inputs, probe.labels):
            values = guard.checked(guard.call(function, probe), probe.inputs.shape[:1])
        return values.double()

    MEASURES.register(guard.name, checked)
