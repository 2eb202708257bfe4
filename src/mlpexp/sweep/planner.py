"""Which runs of a sweep share a stack, and which train alone and why.

Runs share tensors where their shapes agree and their steps take turns: layer sizes, batch size, number of
samples, optimizer. All else (seeds, rates, momentum, decay, schedules, initialisation, label noise, class weights,
activation, epochs, and the data itself where it is small) varies freely inside a stack.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from mlpexp.config.schema import Config
from mlpexp.data.prepared_data import Prepared
from mlpexp.engine.cost_model import evaluation_cost_us, slowness, step_cost_us
from mlpexp.sweep.cpu_load import waiting
from mlpexp.sweep.stack_plan import Plan, Stack

# a stack's weights should stay in the processor's cache; beyond some hundred runs nothing is gained
MAX_RUNS = 128
MAX_PARAMETER_BYTES = 20 << 20
MAX_INPUT_BYTES = 4 << 20  # of a data set of which a stack may hold another one for each run
COPIES = 4  # weights, gradients, the best epoch's, optimizer state
# flags that leave a run's numbers alone
HARMLESS_FLAGS = ("devices", "log_every_n_steps", "enable_model_summary", "num_sanity_val_steps", "profiler")


def plan(configs: Sequence[Config], data: Sequence[Prepared], memory_bytes: int) -> Plan:
    """Divide the runs into stacks whose tensors fit into `memory_bytes`, in the order of the sweep."""
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    alone: dict[int, str] = {}
    for i, (cfg, prepared) in enumerate(zip(configs, data, strict=True)):
        if reason := cannot_be_stacked(cfg):
            alone[i] = reason
        else:
            groups[_key(cfg, prepared)].append(i)
    stacks = []
    for members in groups.values():
        several = len({data[i].inputs_key for i in members}) > 1
        inputs = _input_bytes(data[members[0]]) if several else 0
        limit = _limit(configs[members[0]], data[members[0]], memory_bytes, inputs)
        members.sort(key=lambda i: (configs[i].model.activation, i))
        pieces = -(-len(members) // limit)
        for piece in range(pieces):  # of nearly equal size, so that none is left with a few slow ones
            runs = members[piece * len(members) // pieces : (piece + 1) * len(members) // pieces]
            first, alike = data[runs[0]], [configs[i] for i in runs]
            needed = len(runs) * (_bytes_per_run(alike[0], first) + inputs)
            stacks.append(Stack(runs=runs, seconds=_seconds(alike, first), memory_bytes=needed))
    return Plan(stacks=stacks, alone=alone)


def calibrated(division: Plan, configs: Sequence[Config], data: Sequence[Prepared]) -> Plan:
    """The same with the seconds of this machine as busy as it is, by a trial of its longest stack's steps."""
    if not division.stacks:
        return division
    longest = max(division.stacks, key=lambda stack: stack.seconds).runs[0]
    cfg = configs[longest]
    if cfg.trainer.accelerator != "cpu":
        return division
    slow = slowness(tuple(sizes(cfg, data[longest])), cfg.data.batch_size)
    return replace(division, slowness=slow * waiting(min(division.workers, len(division.stacks))))


def cannot_be_stacked(cfg: Config) -> str | None:
    """Why a run has to train alone; None where it can share a stack."""
    if cfg.model.variant != "torch_nn":
        return f"model.variant={cfg.model.variant}"
    if cfg.callbacks:
        return "your own callbacks"
    if cfg.logger:
        return "your own logger"
    if cfg.tracking.figures:
        return "tracking.figures=true"
    for name in cfg.trainer.flags:
        if name not in HARMLESS_FLAGS:
            return f"trainer.{name}"
    return None


def sizes(cfg: Config, data: Prepared) -> list[int]:
    """Units of each layer, from the inputs to the classes."""
    return [data.num_inputs, *cfg.model.hidden_sizes, data.num_classes]


def _key(cfg: Config, data: Prepared) -> tuple[object, ...]:
    shapes = tuple(len(part) for part in data.split)
    return (
        tuple(sizes(cfg, data)),
        len(data.labels),
        shapes,
        None if _input_bytes(data) <= MAX_INPUT_BYTES else data.inputs_key,
        cfg.data.batch_size,
        cfg.data.shuffle,
        cfg.optimizer.name,
        cfg.stack.exact,
        cfg.tracking.diagnostics,
        cfg.trainer.accelerator,
    )


def _limit(cfg: Config, data: Prepared, memory_bytes: int, input_bytes: int) -> int:
    """Runs of this shape, each with so many bytes of inputs, in a stack; at least two: one is padded to two anyway."""
    fitting = memory_bytes // (_bytes_per_run(cfg, data) + input_bytes)
    return int(max(2, min(MAX_RUNS, MAX_PARAMETER_BYTES // _parameter_bytes(cfg, data), fitting)))


def _input_bytes(data: Prepared) -> int:
    return 4 * len(data.labels) * data.num_inputs


def _parameter_bytes(cfg: Config, data: Prepared) -> int:
    return 4 * sum((a + 1) * b for a, b in pairwise(sizes(cfg, data)))


def _bytes_per_run(cfg: Config, data: Prepared) -> int:
    # an epoch's order, labels, losses and hits; activations of a batch
    samples = len(data.split.train) * (8 + 8 + 8 + 4 + 1 + (8 if cfg.data.class_weight else 0))
    activations = 4 * sum(sizes(cfg, data)) * cfg.data.batch_size * 3
    return COPIES * _parameter_bytes(cfg, data) + samples + activations


def _seconds(configs: Sequence[Config], data: Prepared) -> float:
    cfg = configs[0]
    steps = -(-len(data.split.train) // cfg.data.batch_size)
    epochs = max(c.trainer.max_epochs for c in configs)
    activations = {c.model.activation for c in configs}
    step = step_cost_us(sizes(cfg, data), cfg.data.batch_size, len(configs), sorted(activations))
    return 1e-6 * epochs * (steps * step + evaluation_cost_us(sizes(cfg, data), len(data.split.val), len(configs)))
