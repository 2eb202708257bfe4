"""Many networks of one shape, each trained by compiled code, one run after the other.

A run's bits depend on its own configuration and data only: not on the other runs, their number or order, nor on
threads, nor, where the processor has fused multiply-add, on the machine. They differ from those of torch in the last
places: sums are taken in another order, and elementary functions are this package's own.

Letters: R runs, N samples, I inputs, O outputs of a layer, C classes, P numbers of a run's parameters, T parameter
tensors, n samples of an epoch, m samples of an evaluation.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlpexp.engine.compiled import compile_cache
from mlpexp.engine.compiled.availability import COMPILED_OPTIMIZERS, activation_of, unsupported
from mlpexp.engine.compiled.memory_layout import LINE, Array, MemoryLayout, aligned, memory_layout, padded
from mlpexp.engine.interface import Epoch
from mlpexp.engine.torch.stack_activations import spans
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.optimizers import OPTIMIZERS, UpdateSettings
from mlpexp.nn.outcomes import Outcomes, labels_at

PANEL = 32  # samples that are evaluated at once


class CompiledEngine:
    """A `StackEngine` of compiled loops.

    Args:
        networks: of each run, dense layers with an activation between them; they differ in activations only.
        parameters: by name, (R, ...) float32 on the CPU; copied.
        update: the optimizer's settings.
        threads: among which the runs are divided.

    Raises:
        ValueError: an activation or optimizer has no compiled form; see `unsupported`.
    """

    def __init__(
        self,
        *,
        networks: Sequence[NetworkSpec],
        parameters: Mapping[str, Tensor],
        update: UpdateSettings,
        threads: int = 1,
    ) -> None:
        if reason := next(filter(None, (unsupported(network, update.name) for network in set(networks))), None):
            raise ValueError(reason)
        if unknown := {*update.per_run, *update.extras} - {*COMPILED_OPTIMIZERS[update.name]}:
            raise ValueError(f"{update.name} has no compiled form with {', '.join(sorted(unknown))}")
        if update.decoupled is not None and update.decoupled.ne(OPTIMIZERS[update.name].decoupled_decay).any():
            raise ValueError(f"{update.name} has no compiled form with the other kind of weight decay")
        self.threads, self._settings = threads, update
        self.num_steps = self._began_at = 0
        self._names = list(networks[0].shapes)
        self._sizes = networks[0].sizes
        self._activations = [activation_of(network) for network in networks]
        layout = memory_layout(self._sizes, LINE)
        momentum = update.per_run.get("momentum")
        is_stateless = update.name == "sgd" and (momentum is None or not momentum.any())
        self._state_names = () if is_stateless else OPTIMIZERS[update.name].state_names
        self._scratch: dict[tuple[int, int], tuple[MemoryLayout, Array]] = {}
        self._samples: tuple[Tensor, Array] | None = None
        self._set_runs(
            aligned(len(networks), layout.num_parameters),
            aligned(len(networks), len(self._state_names) * layout.num_parameters),
        )
        for name, values in self.parameters.items():
            values.copy_(parameters[name])
        self.train_outcomes: Outcomes

    def begin_optimizer(self, num_steps: int) -> None:
        """See `StackEngine`."""
        self._began_at = num_steps

    def _set_runs(self, parameters: Array, state: Array) -> None:
        self._parameters, self._state = parameters, state
        settings, num_runs, num_tensors = self._settings, len(parameters), 2 * len(self._sizes) - 2

        def per_run(values: Any, default: float) -> Array:
            numbers = default if values is None else values.numpy() if isinstance(values, Tensor) else values
            return np.broadcast_to(np.asarray(numbers, np.float64), num_runs)

        decay = settings.weight_decay
        rows = [decay] * num_tensors if decay is None or isinstance(decay, Tensor) else list(decay)
        self._decay = np.stack([per_run(row, 0.0) for row in rows], -1)
        columns = []
        for key in COMPILED_OPTIMIZERS[settings.name]:
            default = torch.tensor(OPTIMIZERS[settings.name].defaults.get(key, 0.0), dtype=torch.float64)
            values = settings.per_run.get(key, default.expand(num_runs, *default.shape))
            columns.append(values.reshape(num_runs, -1).numpy().astype(np.float64))
        self._numbers = np.ascontiguousarray(np.concatenate(columns, -1))  # as the kernels are compiled
        self.parameters = dict(zip(self._names, self._views(parameters), strict=True))
        P = parameters.shape[1]
        self.state: dict[str, list[Tensor]] = {
            name: self._views(state[:, i * P : (i + 1) * P]) for i, name in enumerate(self._state_names)
        }

    def _views(self, flat: Array) -> list[Tensor]:
        """Weight and bias of each layer in turn, in torch's shapes, in the memory of (R, P)."""
        views = []
        layers = memory_layout(self._sizes, LINE).layers
        for inputs, outputs, lead, weight, bias in layers[:, :5].tolist():
            rows = flat[:, weight : weight + outputs * lead].reshape(len(flat), outputs, lead)
            views += [torch.from_numpy(rows[:, :, :inputs]), torch.from_numpy(flat[:, bias : bias + outputs])]
        return views

    @property
    def num_runs(self) -> int:
        """See `StackEngine`."""
        return len(self._parameters)

    def train_epoch(self, epoch: Epoch) -> None:
        """See `StackEngine`."""
        if epoch.sample_weights is not None:
            raise ValueError("weights of samples have no compiled form")
        batch_size, class_weights, lr = epoch.batch_size, epoch.class_weights, epoch.lr
        rates = [lr] * (2 * len(self._sizes) - 2) if isinstance(lr, Tensor) else list(lr)
        by_step = np.stack([row.numpy().reshape(-1, self.num_runs) for row in rates], -1)
        shape = self.num_runs, epoch.order.shape[-1]
        losses, predictions = np.empty(shape, np.float32), np.empty(shape, np.int64)
        weights = np.empty(shape if class_weights is not None else (0, 0), np.float32)
        samples, first_rows = self._padded_samples(epoch.inputs), self._first_rows(epoch.first_rows)
        order = epoch.order.expand(shape)
        targets, index = _rows(epoch.labels), np.ascontiguousarray(order.numpy())
        by_class = np.empty((0, 0), np.float32) if class_weights is None else class_weights.contiguous().numpy()

        train = compile_cache.function("kernels", "train")
        product = compile_cache.function("matrix_kernels", "product")
        update = compile_cache.function("updates", self._settings.name)

        def call(thread: int, activation: str, first: int, stop: int) -> None:
            layout, m = self._memory(thread, batch_size)
            train(
                first, stop, product, *compile_cache.activation(activation),
                ACTIVATIONS[activation].reads_input, update, m, layout.layers, layout.places, layout.bounds,
                layout.num_parameters, samples, first_rows, targets, index, batch_size, by_class, by_step, self._decay,
                self._numbers, self.num_steps - self._began_at, self._parameters, self._state, losses, predictions,
                weights,
            )  # fmt: skip

        self._divide(call)
        self.num_steps += -(-shape[1] // batch_size)
        self.train_outcomes = Outcomes(
            losses=torch.from_numpy(losses),
            predictions=torch.from_numpy(predictions),
            labels=labels_at(epoch.labels, order),
            num_classes=self._sizes[-1],
            weights=None if class_weights is None else torch.from_numpy(weights),
        )

    def evaluate(
        self, inputs: Tensor, labels: Tensor, index: Tensor | None = None, first_rows: Tensor | None = None
    ) -> Outcomes:
        """See `StackEngine`."""
        rows = _rows(torch.arange(len(inputs)) if index is None else index)
        shape = self.num_runs, rows.shape[1]
        losses, predictions = np.empty(shape, np.float32), np.empty(shape, np.int64)
        samples, starts, by_sample = self._padded_samples(inputs), self._first_rows(first_rows), _rows(labels)
        evaluate = compile_cache.function("kernels", "evaluate")
        product = compile_cache.function("matrix_kernels", "product")

        def call(thread: int, activation: str, first: int, stop: int) -> None:
            layout, m = self._memory(thread, PANEL)
            evaluate(
                first, stop, product, compile_cache.activation(activation)[0],
                ACTIVATIONS[activation].reads_input, m, layout.layers, layout.places, layout.num_parameters, samples,
                starts, by_sample, rows, PANEL, self._parameters, losses, predictions,
            )  # fmt: skip

        self._divide(call)
        targets = labels if index is None else labels_at(labels, index)
        measured = torch.from_numpy(losses), torch.from_numpy(predictions)
        return Outcomes(*measured, targets.expand(shape), self._sizes[-1])

    def keep(self, runs: Tensor) -> None:
        """See `StackEngine`."""
        runs = torch.arange(self.num_runs)[runs]
        rows = runs.numpy()
        self._settings = self._settings.rows(runs)
        self._activations = [self._activations[i] for i in runs.tolist()]
        self._set_runs(_aligned_copy(self._parameters, rows), _aligned_copy(self._state, rows))

    def _memory(self, thread: int, batch_size: int) -> tuple[MemoryLayout, Array]:
        """The layout for batches of this size, and the scratch memory of a thread."""
        width = padded(batch_size)
        if (thread, width) not in self._scratch:
            layout = memory_layout(self._sizes, width)
            self._scratch[thread, width] = layout, aligned(layout.size)
        return self._scratch[thread, width]

    def _padded_samples(self, inputs: Tensor) -> Array:
        """The inputs with rows padded to whole vectors; made once for each tensor."""
        if self._samples is None or self._samples[0] is not inputs:
            padded_inputs = aligned(len(inputs), padded(inputs.shape[1]))
            padded_inputs[:, : inputs.shape[1]] = inputs.numpy()
            self._samples = inputs, padded_inputs
        return self._samples[1]

    def _first_rows(self, first_rows: Tensor | None) -> Array:
        return np.zeros(self.num_runs, np.int64) if first_rows is None else first_rows.reshape(-1).contiguous().numpy()

    def _divide(self, call: Callable[[int, str, int, int], None]) -> None:
        """Call (thread, activation, first run, stop) for every thread's share of the runs, at once."""
        for activation in set(self._activations):
            compile_cache.activation(activation)  # before threads would compile it at the same time
        count = min(self.threads, self.num_runs)
        bounds = [self.num_runs * i // count for i in range(count + 1)]
        shares = list(enumerate(pairwise(bounds)))

        def work(share: tuple[int, tuple[int, int]]) -> None:
            thread, (first, stop) = share
            for activation, start, end in spans(self._activations[first:stop]):
                call(thread, activation, first + start, first + end)

        if count == 1:
            work(shares[0])
        else:  # the compiled code lets other threads run
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(work, shares))


def _rows(values: Tensor) -> Array:
    """(n,) as (1, n), (R, n) as it is, contiguous int64."""
    return np.ascontiguousarray(values.reshape(-1, values.shape[-1]).numpy())


def _aligned_copy(values: Array, rows: Array) -> Array:
    copy = aligned(len(rows), values.shape[1])
    np.take(values, rows, axis=0, out=copy)
    return copy
