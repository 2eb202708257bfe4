"""Many networks of one shape, each trained by compiled code, one run after the other.

A run's bits depend on its own configuration and data only: not on the other runs, their number or order, nor on
threads, nor, where the processor has fused multiply-add, on the machine. They differ from those of torch in the last
places: sums are taken in another order, and elementary functions are this package's own.

Letters: R runs, N samples, I inputs, O outputs of a layer, C classes, P numbers of a run's parameters, T parameter
tensors, n samples of an epoch, m samples of an evaluation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlpexp.engine.compiled import availability
from mlpexp.engine.compiled.availability import activation_of, unsupported
from mlpexp.nn.metrics import Outcomes, labels_at
from mlpexp.nn.network import NetworkSpec, multilayer_perceptron
from mlpexp.nn.optimizers import OPTIMIZERS, UpdateSettings

LINE = 16  # numbers in a vector; as in `vectors.py`, which imports numba
PANEL = 32  # samples that are evaluated at once

Array = NDArray[Any]


class MemoryLayout(NamedTuple):
    """Where in a thread's scratch memory everything of a run begins; see `kernels.py` for the columns."""

    layers: Array  # (layers, 11) int64
    places: Array  # (7,) int64
    bounds: Array  # where each parameter tensor begins, weights and biases in turn, and P: (T + 1,) int64
    num_parameters: int  # P, with padding
    size: int


def memory_layout(sizes: Sequence[int], width: int) -> MemoryLayout:
    """The layout for networks of these layer sizes and batches of up to `width` samples (whole vectors)."""
    layers, at = np.zeros((len(sizes) - 1, 11), np.int64), 0
    bounds = [0]

    def take(count: int) -> int:
        nonlocal at
        at += _padded(count)
        return at - _padded(count)

    for row, (inputs, outputs) in zip(layers, pairwise(sizes), strict=True):
        row[:3] = inputs, outputs, _padded(inputs)
        row[3] = take(outputs * _padded(inputs))
        bounds.append(at)
        row[4] = take(outputs)
        bounds.append(at)
    P = at
    take(3 * P)  # gradients, optimizer state
    values = [[take(_padded(units) * width) for _ in range(3)] for units in sizes]  # pre, hidden, gradient
    for row, below, own in zip(layers, values, values[1:], strict=False):
        row[5:8] = own
        row[8:] = below[1], below[0], below[2]
    counts = (width * _padded(sizes[0]), width * _padded(max(sizes)), width, width, width, width, LINE)
    places = np.array([take(count) for count in counts])
    return MemoryLayout(layers, places, np.array(bounds), P, at)


class CompiledEngine:
    """The parameters of R runs, their optimizer's state and the compiled loops that change them.

    See `StackEngine` for what it offers.

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
        from mlpexp.engine.compiled.activations import COMPILED_ACTIVATIONS, NUMBERS

        self.threads = threads
        self.num_steps = 0
        self._settings = update
        self._names = list(networks[0].shapes)
        self._sizes = networks[0].sizes
        activations = [activation_of(network) for network in networks]
        self._activations = np.array([NUMBERS[name] for name in activations])
        self._keeps_input = np.array([COMPILED_ACTIVATIONS[name].needs_input for name in activations])
        layout = memory_layout(self._sizes, LINE)
        num_states = len(OPTIMIZERS[update.name].state_names)
        self._scratch: dict[tuple[int, int], tuple[MemoryLayout, Array]] = {}
        self._samples: tuple[Tensor, Array] | None = None
        self._set_runs(
            _aligned(len(networks), layout.num_parameters),
            _aligned(len(networks), num_states * layout.num_parameters),
        )
        for name, mine in self.parameters.items():
            mine.copy_(parameters[name])
        self.train_outcomes: Outcomes

    def _set_runs(self, parameters: Array, state: Array) -> None:
        self._parameters, self._state = parameters, state
        settings, num_runs, num_tensors = self._settings, len(parameters), 2 * len(self._sizes) - 2

        def per_run(values: Any, kind: Any) -> Array:
            return np.zeros(num_runs, kind) if values is None else values.numpy().astype(kind)

        self._momentum = per_run(settings.per_run.get("momentum"), np.float64)
        self._nesterov = per_run(settings.per_run.get("nesterov"), np.bool_)
        decay = settings.weight_decay
        rows = [decay] * num_tensors if decay is None or isinstance(decay, Tensor) else list(decay)
        self._decay = np.stack([per_run(row, np.float64) for row in rows], -1)
        self.parameters = dict(zip(self._names, self._views(parameters), strict=True))
        self.state: dict[str, list[Tensor]] = {}
        names = OPTIMIZERS[settings.name].state_names if settings.name != "sgd" or self._momentum.any() else ()
        P = parameters.shape[1]
        for i, name in enumerate(names):
            self.state[name] = self._views(state[:, i * P : (i + 1) * P])

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
        """R, the runs still here."""
        return len(self._parameters)

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
        rates = [lr] * (2 * len(self._sizes) - 2) if isinstance(lr, Tensor) else list(lr)
        by_step = np.stack([row.numpy().reshape(-1, self.num_runs) for row in rates], -1)
        shape = self.num_runs, num_samples
        losses, predictions = np.empty(shape, np.float32), np.empty(shape, np.int64)
        weights = np.empty(shape if class_weights is not None else (0, 0), np.float32)
        samples, first_rows = self._padded_samples(inputs), self._begins(begins)
        targets, index = _rows(labels), np.ascontiguousarray(order.expand(shape).numpy())
        by_class = np.empty((0, 0), np.float32) if class_weights is None else class_weights.contiguous().numpy()

        shared = self._settings.shared

        def call(thread: int, first: int, stop: int) -> None:
            layout, m = self._memory(thread, batch_size)
            _compiled("train")(
                first, stop, m, layout.layers, layout.places, layout.bounds, layout.num_parameters, samples,
                first_rows, targets, index, batch_size, self._activations, self._keeps_input, by_class,
                availability.OPTIMIZERS[self._settings.name], by_step, self._momentum, self._nesterov, self._decay,
                np.array(shared.get("betas", (0.9, 0.999))), shared.get("eps", 1e-8), self.num_steps,
                self._parameters, self._state, losses, predictions, weights,
            )  # fmt: skip

        self._divide(call)
        self.num_steps += -(-num_samples // batch_size)
        self.train_outcomes = Outcomes(
            losses=torch.from_numpy(losses),
            predictions=torch.from_numpy(predictions),
            labels=labels_at(labels, order.expand(shape)),
            num_classes=self._sizes[-1],
            weights=None if class_weights is None else torch.from_numpy(weights),
        )

    def evaluate(
        self, inputs: Tensor, labels: Tensor, index: Tensor | None = None, begins: Tensor | None = None
    ) -> Outcomes:
        """Losses and predicted classes of samples, (R, m); see `StackEngine`."""
        losses, predictions, _ = self._evaluate(inputs, labels, index, begins)
        targets = labels if index is None else labels_at(labels, index)
        return Outcomes(losses, predictions, targets.expand(losses.shape), self._sizes[-1])

    def logits(self, inputs: Tensor) -> Tensor:
        """The logits of every run for `inputs` (m, I): (R, m, C)."""
        return self._evaluate(inputs, None, None, None)[2]

    def _evaluate(
        self, inputs: Tensor, labels: Tensor | None, index: Tensor | None, begins: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, predictions, and without labels the logits."""
        rows = _rows(torch.arange(len(inputs)) if index is None else index)
        shape = self.num_runs, rows.shape[1]
        targets = np.empty((0, 0), np.int64) if labels is None else _rows(labels)
        losses = np.empty((0, 0) if labels is None else shape, np.float32)
        predictions = np.empty(shape, np.int64)
        logits = np.empty((*shape, self._sizes[-1]) if labels is None else (0, 0, 0), np.float32)
        samples, first_rows = self._padded_samples(inputs), self._begins(begins)

        def call(thread: int, first: int, stop: int) -> None:
            layout, m = self._memory(thread, PANEL)
            _compiled("evaluate")(
                first, stop, m, layout.layers, layout.places, layout.num_parameters, samples, first_rows, targets,
                rows, PANEL, self._activations, self._keeps_input, self._parameters, losses, predictions, logits,
            )  # fmt: skip

        self._divide(call)
        return torch.from_numpy(losses), torch.from_numpy(predictions), torch.from_numpy(logits)

    def keep(self, runs: Tensor) -> None:
        """Let all runs go but these (indices or a mask over the present R); their bits go on unchanged."""
        runs = torch.arange(self.num_runs)[runs]
        rows = runs.numpy()
        self._settings = self._settings.rows(runs)
        self._activations, self._keeps_input = self._activations[rows], self._keeps_input[rows]
        self._set_runs(_aligned_copy(self._parameters, rows), _aligned_copy(self._state, rows))

    def _memory(self, thread: int, batch_size: int) -> tuple[MemoryLayout, Array]:
        """The layout for batches of this size, and the scratch memory of a thread."""
        width = _padded(batch_size)
        if (thread, width) not in self._scratch:
            layout = memory_layout(self._sizes, width)
            self._scratch[thread, width] = layout, _aligned(layout.size)
        return self._scratch[thread, width]

    def _padded_samples(self, inputs: Tensor) -> Array:
        """The inputs with rows padded to whole vectors; made once for each tensor."""
        if self._samples is None or self._samples[0] is not inputs:
            padded = _aligned(len(inputs), _padded(inputs.shape[1]))
            padded[:, : inputs.shape[1]] = inputs.numpy()
            self._samples = inputs, padded
        return self._samples[1]

    def _begins(self, begins: Tensor | None) -> Array:
        return np.zeros(self.num_runs, np.int64) if begins is None else begins.reshape(-1).contiguous().numpy()

    def _divide(self, call: Callable[[int, int, int], None]) -> None:
        """Call (thread, first run, stop) for every thread's share of the runs, at once."""
        count = min(self.threads, self.num_runs)
        bounds = [self.num_runs * i // count for i in range(count + 1)]
        shares = [(i, *pair) for i, pair in enumerate(pairwise(bounds))]
        if count == 1:
            call(*shares[0])
        else:  # the compiled code lets other threads run
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(lambda share: call(*share), shares))


def load_kernels(announce: Callable[[str], None]) -> None:
    """Compile the loops, or load them from the compile cache, before they are needed; once in a process.

    Args:
        announce: called with one line where compiling takes its time.
    """
    directory = availability.cache_directory()
    if directory is None:
        announce("compiling the engine: some ten seconds in every sweep, because the user's cache is not writable")
    elif not any(directory.rglob("*.nbc")):
        announce("compiling the engine for this machine, once: some ten seconds")
    network = multilayer_perceptron(1, [], 2, "identity")
    parameters = {name: torch.zeros(1, *shape) for name, shape in network.shapes.items()}
    engine = CompiledEngine(networks=[network], parameters=parameters, update=UpdateSettings())
    inputs, labels = torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64)
    engine.train_epoch(inputs, labels, torch.zeros(1, 1, dtype=torch.int64), 1, torch.zeros(1, dtype=torch.float64))
    engine.evaluate(inputs, labels)


@cache
def _compiled(name: str) -> Any:
    """A function of `kernels.py`, compiled at its first call, or loaded from the compile cache."""
    from numba import config, njit

    settings: Any = config
    directory, former = availability.cache_directory(), settings.CACHE_DIR
    settings.CACHE_DIR = "" if directory is None else str(directory)
    try:
        from mlpexp.engine.compiled import kernels

        return njit(nogil=True, cache=directory is not None)(getattr(kernels, name).py_func)
    finally:
        settings.CACHE_DIR = former


def _rows(values: Tensor) -> Array:
    """(n,) as (1, n), (R, n) as it is, contiguous int64."""
    return np.ascontiguousarray(values.reshape(-1, values.shape[-1]).numpy())


def _padded(count: int) -> int:
    return -(-count // LINE) * LINE


def _aligned(*shape: int) -> Array:
    """float32 zeros that begin at a cache line."""
    count = math.prod(shape)
    memory = np.zeros(count + LINE, np.float32)
    start = -memory.ctypes.data // 4 % LINE
    return memory[start : start + count].reshape(shape)


def _aligned_copy(values: Array, rows: Array) -> Array:
    made = _aligned(len(rows), values.shape[1])
    np.take(values, rows, axis=0, out=made)
    return made
