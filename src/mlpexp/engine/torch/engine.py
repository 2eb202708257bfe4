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

from mlpexp.engine.torch.matrix_products import ALIGNMENT
from mlpexp.engine.torch.stack_step import StackStep
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.layers import Activate
from mlpexp.nn.losses import sample_weights
from mlpexp.nn.metrics import Outcomes, labels_at
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.optimizers import OPTIMIZERS, UpdateSettings

EVALUATION_BYTES = 8 << 20  # of activations in one pass, for any number of runs: they stay in a CPU's cache
DEVICE_EVALUATION_BYTES = 1 << 30  # of a GPU, where one large pass is faster than many small ones


class Engine:
    """The parameters of R runs, their optimizer's state and the loops that change them.

    Args:
        networks: of each run; they differ in activations only, and equal ones are neighbours.
        parameters: by name (`NetworkSpec.shapes`), (R, ...); copied.
        update: the optimizer's settings.

    Attributes:
        parameters: the present values; clone what you keep, and a run's slice before you save it.
        train_outcomes: of the latest epoch, for the runs that were there then; each sample's loss and predicted class
            are those before its batch's step.
    """

    def __init__(
        self,
        *,
        networks: Sequence[NetworkSpec],
        parameters: Mapping[str, Tensor],
        update: UpdateSettings,
    ) -> None:
        self._settings = update
        self._networks = list(networks)
        network = check_stack(networks, parameters)
        self._num_classes = network.sizes[-1]
        self._set_parameters({name: parameters[name].clone() for name in network.shapes})
        self.train_outcomes: Outcomes

    @property
    def num_runs(self) -> int:
        """R, the number of runs that have not left."""
        return len(self._networks)

    @property
    def state(self) -> dict[str, list[Tensor]]:
        """The optimizer's: by torch's name, one stacked tensor for each parameter, in the order of `parameters`."""
        return self._update.state

    @property
    def num_steps(self) -> int:
        """Number of steps taken."""
        return self._update.num_steps

    @num_steps.setter
    def num_steps(self, count: int) -> None:
        self._update.num_steps = count

    def _set_parameters(self, parameters: dict[str, Tensor]) -> None:
        self.parameters = parameters
        self._gradients = {name: torch.empty_like(values) for name, values in parameters.items()}
        rule = OPTIMIZERS[self._settings.name]
        self._update = rule(self._settings, list(parameters.values()), list(self._gradients.values()))
        self._steps: dict[tuple[int, int], StackStep] = {}

    def train_epoch(
        self,
        inputs: Tensor,
        labels: Tensor,
        order: Tensor,
        batch_size: int,
        lr: Tensor | Sequence[Tensor],
        *,
        class_weights: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> None:
        """One pass over the samples in batches, the last one smaller if need be; see `StackEngine`."""
        num_samples = order.shape[-1]
        order = order.expand(self.num_runs, num_samples)
        self._update.schedule(lr.to(inputs.device) if isinstance(lr, Tensor) else [one.to(inputs.device) for one in lr])
        losses = inputs.new_empty(self.num_runs, num_samples)
        self.train_outcomes = Outcomes(
            losses=losses,
            predictions=torch.empty_like(order, memory_format=torch.contiguous_format),
            labels=labels_at(labels, order),
            num_classes=self._num_classes,
            weights=None if class_weights is None else torch.empty_like(losses),
        )
        whole = num_samples // batch_size * batch_size
        for start, stop, size in ((0, whole, batch_size), (whole, num_samples, num_samples - whole)):
            if start < stop:
                self._train(inputs, order, start, stop, size, class_weights, begins)

    def _train(
        self,
        inputs: Tensor,
        order: Tensor,
        start: int,
        stop: int,
        size: int,
        class_weights: Tensor | None,
        begins: Tensor | None,
    ) -> None:
        """The steps on the samples start..stop of the order, `size` at a time."""
        index = _by_steps(order[:, start:stop], size)  # (S, R, B)
        outcomes = self.train_outcomes
        targets = _by_steps(outcomes.labels[:, start:stop], size)
        losses, predictions = inputs.new_empty(*index.shape, 1), torch.empty_like(index)
        slopes: Sequence[Tensor | None] = [None] * len(index)
        if class_weights is not None and outcomes.weights is not None:
            weights, steps = sample_weights(targets, class_weights)
            _in_order(outcomes.weights[:, start:stop], size).copy_(weights)
            slopes = steps.unbind()
        if begins is not None:
            index = index + begins
        batches = zip(
            index.flatten(1).unbind(),
            targets.unsqueeze(3).unbind(),
            losses.unbind(),
            predictions.unbind(),
            slopes,
            strict=True,
        )
        step = self._step(inputs, size)
        for batch in batches:
            step(*batch)
        losses = losses.squeeze(3).neg_()
        _in_order(outcomes.losses[:, start:stop], size).copy_(losses if class_weights is None else losses * weights)
        _in_order(outcomes.predictions[:, start:stop], size).copy_(predictions)

    def _step(self, samples: Tensor, size: int) -> Any:
        key = size, torch.get_num_threads()
        if key not in self._steps:
            batch = samples.new_empty(self.num_runs, size, samples.shape[1])
            self._steps[key] = StackStep(self._networks, self.parameters, batch, self._gradients)
        step = self._steps[key]

        def train(index: Tensor, labels: Tensor, losses: Tensor, predictions: Tensor, slopes: Tensor | None) -> None:
            step.gather(samples, index)
            step.forward()
            step.measure(labels, losses, predictions)
            step.backward(labels, slopes)
            self._update.step()

        return train

    def evaluate(
        self, inputs: Tensor, labels: Tensor, index: Tensor | None = None, begins: Tensor | None = None
    ) -> Outcomes:
        """Losses and predicted classes of samples, (R, m), all samples in one batch; see `StackEngine`."""
        targets = labels if index is None else labels_at(labels, index)
        targets = targets.expand(self.num_runs, targets.shape[-1])  # (R, m)
        losses, predictions = (
            inputs.new_empty(*targets.shape, 1),
            torch.empty(targets.shape, dtype=torch.int64, device=inputs.device),
        )
        for start, stop, step in self._forward(inputs, _moved(index, begins)):
            step.measure(targets[start:stop].unsqueeze(2), losses[start:stop], predictions[start:stop])
        return Outcomes(losses.squeeze(2).neg_(), predictions, targets, self._num_classes)

    def logits(self, inputs: Tensor) -> Tensor:
        """The logits of every run for `inputs` (m, I) as one batch: (R, m, C)."""
        answers = [step.logits.clone() for _, _, step in self._forward(inputs, None)]
        return torch.cat(answers)

    def _forward(self, inputs: Tensor, index: Tensor | None) -> Any:
        """The forward pass of a few runs at a time; yields (start, stop, step)."""
        shared = index is None or index.ndim == 1
        if shared:
            inputs = inputs if index is None else inputs[index]
            if inputs.data_ptr() % ALIGNMENT or not inputs.is_contiguous():
                inputs = inputs.clone(memory_format=torch.contiguous_format)
        size = inputs.shape[0] if index is None else index.shape[-1]
        per_run = (
            size * inputs.element_size() * sum(layer.inputs + layer.outputs for _, layer in self._networks[0].linear)
        )
        bound = EVALUATION_BYTES if inputs.device.type == "cpu" else DEVICE_EVALUATION_BYTES
        chunk = max(1, min(self.num_runs, bound // per_run))
        for start in range(0, self.num_runs, chunk):
            stop = min(start + chunk, self.num_runs)
            batch = inputs.expand(stop - start, -1, -1) if shared else inputs[index[start:stop]]  # type: ignore[index]
            step = StackStep(
                self._networks[start:stop],
                {name: values[start:stop] for name, values in self.parameters.items()},
                batch,
            )
            step.forward()
            yield start, stop, step

    def keep(self, runs: Tensor) -> None:
        """Remove all runs but these (indices or a mask over the present R); their bits do not change."""
        runs = torch.arange(self.num_runs, device=runs.device)[runs]
        state, num_steps = self._update.state, self._update.num_steps
        self._settings = self._settings.rows(runs)
        self._networks = [self._networks[i] for i in runs.tolist()]
        runs = runs.to(next(iter(self.parameters.values())).device)
        self._set_parameters({name: values[runs] for name, values in self.parameters.items()})
        self._update.num_steps = num_steps
        for name, tensors in self._update.state.items():
            for new, old in zip(tensors, state[name], strict=True):
                new.copy_(old[runs])


def check_stack(networks: Sequence[NetworkSpec], parameters: Mapping[str, Tensor]) -> NetworkSpec:
    """The first of the networks of a stack.

    Raises:
        ValueError: the networks cannot share a stack, or a parameter is missing or has another shape.
        UserError: an activation is not registered.
    """
    first = networks[0]
    for network in set(networks):
        if [type(layer) for layer in network.layers] != [type(layer) for layer in first.layers]:
            raise ValueError(f"networks of one stack have layers of the same kinds, not {first} and {network}")
        for layer in network.layers:
            if isinstance(layer, Activate):
                ACTIVATIONS[layer.name]
    wanted = {name: (len(networks), *shape) for name, shape in first.shapes.items()}
    given = {name: tuple(values.shape) for name, values in parameters.items()}
    if any(network.shapes != first.shapes for network in set(networks)) or given != wanted:
        raise ValueError(f"parameters of shapes {given} do not fit networks that need {wanted}")
    return first


def _moved(index: Tensor | None, begins: Tensor | None) -> Tensor | None:
    """The rows of the inputs that hold the samples of an index."""
    return index if index is None or begins is None else index + begins


def _by_steps(values: Tensor, size: int) -> Tensor:
    """(R, S * B) -> (S, R, B), contiguous, so that the samples of a step are one block."""
    return _in_order(values, size).contiguous()


def _in_order(values: Tensor, size: int) -> Tensor:
    """(R, S * B) as a view (S, R, B)."""
    num_runs, num_samples = values.shape
    return values.view(num_runs, num_samples // size, size).transpose(0, 1)
