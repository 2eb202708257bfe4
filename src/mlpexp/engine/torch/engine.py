"""Many networks of one shape, trained together.

Every run has the bits of a run alone on the same machine with the same number of threads: `nn.Linear`,
`F.cross_entropy`, `torch.optim`, float32, every batch a new tensor. They depend neither on the number of runs nor on
the position of a run nor on the other runs, including one that diverges. Uniform in a stack are: the kinds and sizes of
layers, the batch size, the number of samples in an epoch, the optimizer, and the number of steps taken. Everything
else may differ between runs.

Letters: R runs, B batch, S steps, I inputs, O outputs of a layer, C classes, N samples, n samples of an epoch,
m samples of an evaluation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlpexp.engine.interface import Epoch
from mlpexp.engine.torch.matrix_products import ALIGNMENT
from mlpexp.engine.torch.stack_step import StackStep
from mlpexp.engine.torch.stacked_losses import slopes_of
from mlpexp.engine.torch.step_extras import StepExtras
from mlpexp.nn.losses import CROSS_ENTROPY, LossFunction
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.optimizers import OPTIMIZERS, UpdateSettings
from mlpexp.nn.outcomes import Outcomes, labels_at

EVALUATION_BYTES = 8 << 20  # of activations in one pass, for any number of runs: they stay in a CPU's cache
DEVICE_EVALUATION_BYTES = 1 << 30  # of a GPU, where one large pass is faster than many small ones


class Engine:
    """A `StackEngine` whose operations are those of torch.

    Args:
        networks: of each run; they differ in activations only, and equal ones are neighbours.
        parameters: by name (`NetworkSpec.tensors`: running statistics, too), (R, ...); copied.
        update: the optimizer's settings.
        loss: what is minimised, and without label smoothing what is evaluated.
        keeps_outputs: outcomes hold the networks' outputs, which some metrics need.
        seeds: of each run; dropout needs them.

    Attributes:
        parameters: the present values, running statistics too; clone a run's slice before you save it.
        train_outcomes: for the runs that were there in the latest epoch.
    """

    def __init__(
        self,
        *,
        networks: Sequence[NetworkSpec],
        parameters: Mapping[str, Tensor],
        update: UpdateSettings,
        loss: LossFunction = CROSS_ENTROPY,
        keeps_outputs: bool = False,
        seeds: Sequence[int] = (),
    ) -> None:
        self._settings = update
        self._loss, self._keeps_outputs = loss, keeps_outputs
        self._seeds = list(seeds)
        self._networks = list(networks)
        network = check_stack(networks, parameters)
        if network.dropouts and len(self._seeds) != len(self._networks):
            raise ValueError(f"dropout needs a seed for each of {len(self._networks)} runs, not {len(self._seeds)}")
        self._num_outputs = network.sizes[-1]
        self._epoch: int | None = None  # the latest one that was trained here, counted from the start of the runs
        self._set_parameters({name: parameters[name].clone() for name in network.tensors})
        self.train_outcomes: Outcomes

    @property
    def num_runs(self) -> int:
        """R, the number of runs that have not left."""
        return len(self._networks)

    @property
    def state(self) -> dict[str, list[Tensor]]:
        """The optimizer's: by torch's name, one stacked tensor for each parameter, in the order of `parameters`."""
        return self._optimizer.state | self._extras.state

    @property
    def num_steps(self) -> int:
        """Number of steps taken."""
        return self._optimizer.num_steps

    @num_steps.setter
    def num_steps(self, count: int) -> None:
        self._optimizer.num_steps = count

    def begin_optimizer(self, num_steps: int) -> None:
        """See `StackEngine`."""
        self._optimizer.begin_anew(num_steps)

    def _set_parameters(self, parameters: dict[str, Tensor]) -> None:
        self.parameters = parameters
        trained = {name: parameters[name] for name in self._networks[0].shapes}
        self._gradients = {name: torch.empty_like(values) for name, values in trained.items()}
        pairs = list(trained.values()), list(self._gradients.values())
        self._optimizer = OPTIMIZERS[self._settings.name](self._settings, *pairs)
        self._extras = StepExtras(self._settings.extras, *pairs)
        self._steps: dict[tuple[int, int], StackStep] = {}

    def train_epoch(self, epoch: Epoch) -> None:
        """One pass over the samples in batches, the last one smaller if need be; see `StackEngine`."""
        inputs, lr, num_samples, batch_size = epoch.inputs, epoch.lr, epoch.order.shape[-1], epoch.batch_size
        epoch = epoch._replace(order=epoch.order.expand(self.num_runs, num_samples))
        self._optimizer.schedule(
            lr.to(inputs.device) if isinstance(lr, Tensor) else [row.to(inputs.device) for row in lr]
        )
        targets = labels_at(epoch.labels, epoch.order)
        weights = None if epoch.class_weights is None else epoch.class_weights.gather(1, targets)
        if (sample_weights := epoch.sample_weights) is not None:
            weights_in_order = (
                sample_weights[epoch.order] if sample_weights.ndim == 1 else sample_weights.gather(1, epoch.order)
            )
            weights = weights_in_order if weights is None else weights * weights_in_order
        self.train_outcomes = self._outcomes(inputs, targets, weights)
        num_steps = -(-num_samples // batch_size)
        full_batches = num_samples // batch_size * batch_size
        for start, stop, size in (
            (0, full_batches, batch_size),
            (full_batches, num_samples, num_samples - full_batches),
        ):
            if start < stop:
                self._train(epoch, start, stop, size, num_steps)
        self._epoch = self.num_steps // num_steps - 1
        if self._extras.average is not None:
            self._extras.average.after_epoch(self._epoch)

    def _train(self, epoch: Epoch, start: int, stop: int, size: int, epoch_steps: int) -> None:
        """The steps on the samples start..stop of the order, `size` at a time, of an epoch of `epoch_steps` steps."""
        inputs, outcomes = epoch.inputs, self.train_outcomes
        index = _by_steps(epoch.order[:, start:stop], size)  # (S, R, B)
        targets = _by_steps(_with_last_axis(outcomes.labels)[:, start:stop], size)  # (S, R, B, 1 or C)
        losses = inputs.new_empty(*index.shape, 1)
        nothing: Sequence[Tensor | None] = [None] * len(index)
        slopes = outputs = nothing
        classes = None if outcomes.predictions is None else torch.empty_like(index)
        if outcomes.outputs is not None:
            outputs = _in_order(outcomes.outputs[:, start:stop], size).unbind()
        if outcomes.weights is not None:
            weights = _by_steps(outcomes.weights[:, start:stop], size)
            slopes = slopes_of(weights).unbind()
        if epoch.first_rows is not None:
            index = index + epoch.first_rows
        batches = zip(
            index.flatten(1).unbind(),
            targets.unbind(),
            losses.unbind(),
            nothing if classes is None else classes.unbind(),
            outputs,
            slopes,
            strict=True,
        )
        step, optimizer, extras = self._step(inputs, size), self._optimizer, self._extras
        for rows, own_targets, own_losses, predictions, own_outputs, own_slopes in batches:
            step.gather(inputs, rows)
            step.draw(*divmod(optimizer.num_steps, epoch_steps))
            step.forward()
            step.measure(own_targets, own_losses, predictions)
            if own_outputs is not None:
                own_outputs.copy_(step.logits)
            step.backward(own_targets, own_slopes)
            extras.before_step()
            optimizer.step()
            extras.after_step(optimizer.num_steps)
        losses = losses.squeeze(3).neg_()
        _in_order(outcomes.losses[:, start:stop], size).copy_(losses if outcomes.weights is None else losses * weights)
        if outcomes.predictions is not None and classes is not None:
            _in_order(outcomes.predictions[:, start:stop], size).copy_(classes)

    def _step(self, samples: Tensor, size: int) -> StackStep:
        key = size, torch.get_num_threads()
        if key not in self._steps:
            self._steps[key] = self._training_step(samples, size)
        return self._steps[key]

    def _training_step(self, samples: Tensor, size: int) -> StackStep:
        """The step for batches of `size` of the samples (N, I)."""
        batch = samples.new_empty(self.num_runs, size, samples.shape[1])
        return StackStep(self._networks, self.parameters, batch, self._loss, self._gradients, self._seeds)

    def _evaluation_step(self, start: int, stop: int, parameters: Mapping[str, Tensor], inputs: Tensor) -> StackStep:
        """A step forward of the runs start..stop, with their parameters and inputs (R, m, I)."""
        return StackStep(self._networks[start:stop], parameters, inputs, self._loss.without_smoothing)

    def evaluate(
        self, inputs: Tensor, labels: Tensor, index: Tensor | None = None, first_rows: Tensor | None = None
    ) -> Outcomes:
        """Losses and predicted classes of samples, (R, m), all samples in one batch; see `StackEngine`."""
        targets = labels if index is None else labels_at(labels, index)
        axes = 1 + targets.is_floating_point()
        targets = targets.expand(self.num_runs, *targets.shape[-axes:])  # (R, m) or (R, m, C)
        if index is not None and first_rows is not None:
            index = index + first_rows
        outcomes = self._outcomes(inputs, targets)
        losses, by_sample = outcomes.losses.unsqueeze(2), _with_last_axis(targets)
        for start, stop, step in self._forward(inputs, index):
            predictions = None if outcomes.predictions is None else outcomes.predictions[start:stop]
            step.measure(by_sample[start:stop], losses[start:stop], predictions)
            if outcomes.outputs is not None:
                outcomes.outputs[start:stop].copy_(step.logits)
        outcomes.losses.neg_()
        return outcomes

    def _outcomes(self, inputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Outcomes:
        """Buffers for the outcomes of samples with these targets, (R, n) or (R, n, C)."""
        shape, classifies = targets.shape[:2], not targets.is_floating_point()
        keeps = self._keeps_outputs or not classifies
        return Outcomes(
            losses=inputs.new_empty(shape),
            predictions=torch.empty(shape, dtype=torch.int64, device=inputs.device) if classifies else None,
            labels=targets,
            num_classes=self._num_outputs,
            weights=weights,
            outputs=inputs.new_empty(*shape, self._num_outputs) if keeps else None,
        )

    def _forward(self, inputs: Tensor, index: Tensor | None) -> Any:
        """The forward pass of a few runs at a time; yields (start, stop, step)."""
        parameters = self._evaluated_parameters()
        shared = index is None or index.ndim == 1
        if shared:
            inputs = inputs if index is None else inputs[index]
            if inputs.data_ptr() % ALIGNMENT or not inputs.is_contiguous():
                inputs = inputs.clone(memory_format=torch.contiguous_format)
        size = inputs.shape[0] if index is None else index.shape[-1]
        per_run = size * inputs.element_size() * self._networks[0].units
        bound = EVALUATION_BYTES if inputs.device.type == "cpu" else DEVICE_EVALUATION_BYTES
        chunk = max(1, min(self.num_runs, bound // per_run))
        for start in range(0, self.num_runs, chunk):
            stop = min(start + chunk, self.num_runs)
            batch = inputs.expand(stop - start, -1, -1) if shared else inputs[index[start:stop]]  # type: ignore[index]
            chunk_parameters = {name: values[start:stop] for name, values in parameters.items()}
            step = self._evaluation_step(start, stop, chunk_parameters, batch)
            step.forward()
            yield start, stop, step

    def _evaluated_parameters(self) -> Mapping[str, Tensor]:
        """The parameters, or their averages after the latest epoch."""
        if self._extras.average is None or self._epoch is None:
            return self.parameters
        averages = self._extras.average.evaluated(self._epoch)
        return self.parameters | dict(zip(self._gradients, averages, strict=True))

    def keep(self, runs: Tensor) -> None:
        """See `StackEngine`."""
        runs = torch.arange(self.num_runs, device=runs.device)[runs]
        state, num_steps = self.state, self.num_steps
        self._settings = self._settings.rows(runs)
        self._networks = [self._networks[i] for i in runs.tolist()]
        self._seeds = [self._seeds[i] for i in runs.tolist()] if self._seeds else []
        runs = runs.to(next(iter(self.parameters.values())).device)
        self._set_parameters({name: values[runs] for name, values in self.parameters.items()})
        self.num_steps = num_steps
        for name, tensors in self.state.items():
            for new, old in zip(tensors, state[name], strict=True):
                new.copy_(old[runs])


def check_stack(networks: Sequence[NetworkSpec], parameters: Mapping[str, Tensor]) -> NetworkSpec:
    """The first of the networks of a stack.

    Raises:
        ValueError: the networks cannot share a stack, or a parameter is missing or has another shape.
    """
    first = networks[0]
    if different := [network for network in set(networks) if network.stack_key != first.stack_key]:
        raise ValueError(
            f"networks of one stack have layers of the same kinds and sizes, not {first} and {different[0]}"
        )
    expected = {name: (len(networks), *shape) for name, shape in first.tensors.items()}
    actual = {name: tuple(values.shape) for name, values in parameters.items()}
    if actual != expected:
        raise ValueError(f"parameters of shapes {actual} do not fit networks that need {expected}")
    return first


def _by_steps(values: Tensor, size: int) -> Tensor:
    """(R, S * B, ...) -> (S, R, B, ...), contiguous, so that the samples of a step are one block."""
    return _in_order(values, size).contiguous()


def _in_order(values: Tensor, size: int) -> Tensor:
    """(R, S * B, ...) as a view (S, R, B, ...)."""
    return values.unflatten(1, (-1, size)).transpose(0, 1)


def _with_last_axis(targets: Tensor) -> Tensor:
    """Classes (R, n) as (R, n, 1); values (R, n, C) as they are."""
    return targets if targets.is_floating_point() else targets.unsqueeze(2)
