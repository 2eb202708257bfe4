"""Divides runs into stacks; names the runs that train alone, and why.

Runs share tensors where their shapes agree and they take the same steps: layer sizes, batch size, number of samples,
optimizer. Everything else may differ inside a stack: seeds, rates, momentum, decay, schedules, initialisation, label
noise, class weights, activation, epochs, and the data itself where it is small.

Importing this file imports no torch: a finished sweep is recognised without it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlpexp.config.schema import Config
from mlpexp.engine.cost_model import evaluation_cost_us, module_cost_us, step_cost_us
from mlpexp.engine.stack_memory import bytes_per_run, device_bytes_per_run, free_device_bytes, parameter_bytes
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.runtime.portable import available_memory
from mlpexp.training.engine_choice import cannot_be_stacked

if TYPE_CHECKING:
    from mlpexp.data.prepared_data import Prepared

# The weights of a stack should stay in the processor's cache; more than some hundred runs are no faster. The compiled
# engine trains one run after the other; longer stacks save 6 %, since Lightning's work per epoch is done once a stack.
MAX_RUNS = {"torch": 128, "auto": 128, "vmap": 128, "compiled": 512}
MAX_PARAMETER_BYTES = 20 << 20
MAX_INPUT_BYTES = 4 << 20  # of a data set of which every run in a stack may have its own version
MAX_DEVICE_RUNS = 4096  # on a GPU a step costs the same for some hundred runs, and beyond these nothing is gained
COMPILED_SPEEDUP = 2.5  # of the compiled engine: `Stack.cost` is that of torch's
MIN_PIECE = 2  # runs; a stack of one is padded to two anyway
MIN_COST = 1.5  # seconds, estimated; less than that one process trains as quickly as several
EFFICIENT_PIECE = 48  # runs below which a stack costs noticeably more per run
MEMORY_SHARE = 0.25  # of the available memory: other processes, the data and file contents need some too
MIN_MEMORY, MAX_MEMORY = 64 << 20, 2 << 30


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Runs that are trained together, by their position in the sweep; equal activations are neighbours."""

    runs: list[int]
    cost: float
    """estimated seconds on one core of the reference machine: for comparing stacks, not for announcing times"""
    memory_bytes: int
    """estimated"""
    trained_share: float = 0.0
    """the share of its epochs that was trained before; `cost` is that of the others"""

    def pieces(self, count: int) -> Iterator["Stack"]:
        """The same runs in `count` stacks of nearly equal size."""
        for i in range(count):
            part = self.runs[i * len(self.runs) // count : (i + 1) * len(self.runs) // count]
            share = len(part) / len(self.runs)
            yield replace(self, runs=part, cost=self.cost * share, memory_bytes=int(self.memory_bytes * share))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every run of the sweep exactly once: in a stack, or alone with the reason."""

    stacks: list[Stack]
    alone: dict[int, str]

    @property
    def cost(self) -> float:
        return sum(stack.cost for stack in self.stacks)


def plan(
    configs: Sequence[Config],
    data: "Sequence[Prepared]",
    *,
    workers: int = 1,
    memory_bytes: int | None = None,
    epochs_done: Sequence[int] | None = None,
) -> Plan:
    """Divide runs into stacks, in the order of the sweep; positions count within `configs`.

    Args:
        workers: stacks that are trained at the same time; no stack is so long that the others wait for it.
        memory_bytes: of all stacks that are trained at the same time; None: `stack.memory_mib`, or a share of the
            memory that is available now.
        epochs_done: of each run; runs that carry on share a stack only with runs of the same epoch.
    """
    if memory_bytes is None:
        memory_bytes = _memory(configs[0].stack.memory_mib)
    groups: dict[tuple[object, int], list[int]] = defaultdict(list)
    alone: dict[int, str] = {}
    keys: dict[tuple[int, ...], tuple[str | None, object]] = {}  # by objects: runs share the parts of their settings
    for i, (cfg, prepared) in enumerate(zip(configs, data, strict=True)):
        objects = id(prepared), *cfg.shared_parts
        if objects not in keys:
            reason = cannot_be_stacked(cfg)
            keys[objects] = reason, None if reason else _key(cfg, prepared)
        reason, key = keys[objects]
        if reason:
            alone[i] = reason
        else:
            groups[key, epochs_done[i] if epochs_done else 0].append(i)
    stacks = [
        _continued(stack, epochs, max(configs[i].trainer.max_epochs for i in stack.runs))
        for (_, epochs), runs in groups.items()
        for stack in _stacks(runs, configs, data, memory_bytes=memory_bytes // workers)
    ]
    if workers > 1 and stacks:
        share = sum(stack.cost for stack in stacks) / workers
        stacks = [piece for stack in stacks for piece in stack.pieces(_num_pieces(stack, share))]
    return Plan(stacks=stacks, alone=alone)


def _key(cfg: Config, data: "Prepared") -> tuple[object, ...]:
    """What the runs of a stack have in common."""
    return (
        _network(cfg, data).stack_key,
        len(data.labels),
        tuple(len(part) for part in data.split),
        None if _input_bytes(data) <= MAX_INPUT_BYTES else data.inputs_key,
        cfg.data.batch(len(data.split.train)),
        cfg.data.shuffle,
        cfg.data.learns,
        cfg.loss_function,
        cfg.metric_names,
        str(cfg.callbacks),
        cfg.optimizer.name,
        (cfg.epochs_before_pruning, cfg.prune.rounds) if _is_rewound_in_step(cfg) else None,
        cfg.stack.engine,
        cfg.tracking.diagnostics,
        cfg.trainer.accelerator,
    )


def _is_rewound_in_step(cfg: Config) -> bool:
    """Whether pruning sets the count of the optimizer's steps back, which the runs of a stack share."""
    return cfg.prune.rewind is not None and OPTIMIZERS[cfg.optimizer.name].counts_steps


def _stacks(
    members: list[int], configs: Sequence[Config], data: "Sequence[Prepared]", *, memory_bytes: int
) -> Iterator[Stack]:
    """Runs of one shape in as few stacks as memory and cache allow, of nearly equal size."""
    cfg, prepared = configs[members[0]], data[members[0]]  # their sizes are those of all
    network, samples = _network(cfg, prepared), len(prepared.split.train)
    input_bytes = _input_bytes(prepared) if len({data[i].inputs_key for i in members}) > 1 else 0
    run_bytes = _run_bytes(cfg, prepared) + input_bytes
    by_memory, by_cache = memory_bytes // run_bytes, MAX_PARAMETER_BYTES // parameter_bytes(network)
    max_runs = min(MAX_RUNS[cfg.stack.engine], by_cache, by_memory)
    if free := free_device_bytes(cfg.trainer.accelerator, cfg.trainer.flags):
        evaluated = max(len(prepared.split.val), len(prepared.split.test))
        run_bytes = device_bytes_per_run(network, samples, evaluated, cfg.data.batch(samples)) + input_bytes
        if cfg.stack.memory_mib is not None:
            free = min(free, memory_bytes)
        max_runs = min(MAX_DEVICE_RUNS, free // run_bytes)
    members = sorted(members, key=lambda i: (_activation(configs[i]), i))
    stack = Stack(runs=members, cost=0.0, memory_bytes=len(members) * run_bytes)
    for piece in stack.pieces(-(-len(members) // max(MIN_PIECE, max_runs))):
        yield replace(piece, cost=_cost([configs[i] for i in piece.runs], prepared))


def _continued(stack: Stack, epochs_done: int, epochs: int) -> Stack:
    trained_share = min(1.0, epochs_done / epochs)
    return replace(stack, cost=stack.cost * (1 - trained_share), trained_share=trained_share)


def _activation(cfg: Config) -> tuple[str, float, str]:
    """A key that is equal for activations with the same kernels."""
    value = cfg.model.activation_value
    return cfg.model.activation, value if isinstance(value, float) else 0.0, repr(value)


def _num_pieces(stack: Stack, share: float) -> int:
    """The number of pieces of a stack, so that each worker gets work of about the cost `share`."""
    needed = min(-(-stack.cost // share), len(stack.runs) // MIN_PIECE)  # so that every worker has one
    even = min(-(-stack.cost // (share / 2)), len(stack.runs) // EFFICIENT_PIECE)  # so that all end at one time
    return max(1, int(needed), int(even))


def _memory(mib: int | None) -> int:
    if mib is not None:
        return mib << 20
    return int(min(MAX_MEMORY, max(MIN_MEMORY, MEMORY_SHARE * available_memory())))


def _input_bytes(data: "Prepared") -> int:
    return 4 * len(data.labels) * data.num_inputs


def _network(cfg: Config, data: "Prepared") -> NetworkSpec:
    return cfg.model.network(data.num_inputs, data.num_classes)


def _run_bytes(cfg: Config, data: "Prepared") -> int:
    is_weighted = cfg.data.class_weight is not None or cfg.data.sample_weight is not None
    outputs = 0
    if cfg.keeps_outputs:  # of training, and of validation in double precision where metrics are computed
        outputs = data.num_classes * (4 * len(data.split.train) + 24 * len(data.split.val))
    return outputs + bytes_per_run(
        _network(cfg, data), len(data.split.train), cfg.data.batch(len(data.split.train)), is_weighted=is_weighted
    )


def _cost(configs: Sequence[Config], data: "Prepared") -> float:
    cfg, sizes = configs[0], _network(configs[0], data).sizes
    samples = len(data.split.train)
    epochs = max(c.trainer.max_epochs for c in configs)
    if cfg.model.target is not None:
        network = _network(cfg, data)
        step, sample = module_cost_us(network.num_parameters, network.units, cfg.data.batch(samples), len(configs))
        return 1e-6 * epochs * (cfg.data.steps(samples) * step + len(data.split.val) * sample)
    activations = {c.model.activation for c in configs}
    step = step_cost_us(sizes, cfg.data.batch(samples), len(configs), sorted(activations))
    return (
        1e-6 * epochs * (cfg.data.steps(samples) * step + evaluation_cost_us(sizes, len(data.split.val), len(configs)))
    )
