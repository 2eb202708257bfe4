"""The engine of a stack as the configurations of its runs describe it: kind, parameters, settings, learning rates.

Letters: R runs, A those still training, P parameters, S steps of an epoch.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor

from mlpexp.config.model_config import ModelConfig
from mlpexp.config.schema import Config
from mlpexp.engine.compiled import availability, draws
from mlpexp.engine.interface import StackEngine
from mlpexp.engine.torch.captured_engine import CapturedEngine
from mlpexp.engine.torch.engine import Engine
from mlpexp.engine.torch.vmap_engine import VmapEngine
from mlpexp.models.training_state import RunRecord
from mlpexp.nn.initialisation import initialise, initialise_, uniform_bounds
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.optimizers import OPTIMIZERS, UpdateSettings
from mlpexp.nn.optimizers.muon import hidden_matrices
from mlpexp.nn.parametrization import initial_factors, is_decoupled, parameter_settings
from mlpexp.nn.schedules import SCHEDULES, Plateau, epoch_factors
from mlpexp.runtime.object_cache import ByObject

MIN_SEEDS = 8  # runs of the same settings, of which one is compared


def make_engine(
    configs: Sequence[Config],
    networks: Sequence[NetworkSpec],
    parameters: Mapping[str, Tensor],
    update: UpdateSettings,
    device: torch.device,
) -> StackEngine:
    """The engine for all runs of a stack.

    Args:
        parameters: by name, (R, ...), on any device.
    """
    first = configs[0]
    parameters = {name: values.to(device) for name, values in parameters.items()}
    if first.stack.engine == "compiled":
        from mlpexp.engine.compiled.engine import CompiledEngine

        return CompiledEngine(networks=networks, parameters=parameters, update=update, threads=first.stack_threads)
    kind = CapturedEngine if device.type == "cuda" else Engine
    if first.model.target is not None:
        kind = VmapEngine
    return kind(
        networks=networks,
        parameters=parameters,
        update=update,
        loss=first.loss_function,
        keeps_outputs=any(cfg.keeps_outputs for cfg in {cfg.shared_parts: cfg for cfg in configs}.values()),
        seeds=[cfg.seed for cfg in configs],
    )


def initial_parameters(configs: Sequence[Config], networks: Sequence[NetworkSpec]) -> dict[str, Tensor]:
    """The values of each run before its first step, by name, (R, ...)."""
    stacked = {name: torch.empty(len(configs), *shape) for name, shape in networks[0].tensors.items()}
    groups: dict[object, list[int]] = defaultdict(list)  # of equal settings
    for run, (cfg, network) in enumerate(zip(configs, networks, strict=True)):
        groups[id(cfg.model), id(network)].append(run)
    is_many = availability.draws(configs)
    for runs in groups.values():
        network, model, seeds = networks[runs[0]], configs[runs[0]].model, [configs[run].seed for run in runs]
        if is_many and (drawn := _drawn_at_once(network, model, seeds)) is not None:
            for name, values in drawn.items():
                if len(runs) == len(configs):
                    stacked[name] = values
                else:
                    stacked[name][runs] = values
            continue
        for run, seed in zip(runs, seeds, strict=True):
            initialise_({name: values[run] for name, values in stacked.items()}, network, model, seed)
    return stacked


def _drawn_at_once(network: NetworkSpec, model: ModelConfig, seeds: Sequence[int]) -> dict[str, Tensor] | None:
    """The initial values for each seed, by name, (R, ...); None where torch has to draw them one by one."""
    bounds = uniform_bounds(network, model)
    if bounds is None or len(seeds) < MIN_SEEDS:
        return None
    values = draws.uniforms(seeds, network.shapes, bounds)
    for name, factor in (initial_factors(model, network) or {}).items():
        values[name].mul_(factor)
    first = initialise(network, model, seeds[0])  # another version of torch might draw other numbers
    return values if all(torch.equal(values[name][0], first[name]) for name in network.tensors) else None


# of `StepExtras`: where each stands in the configuration, and the number of a run without it
EXTRAS = {
    "clip_norm": ("optimizer.clip_norm", math.inf),
    "clip_value": ("optimizer.clip_value", math.inf),
    "ema_decay": ("ema.decay", math.nan),
    "swa_start": ("swa.start", math.inf),
    "prune": ("prune.fraction", 0.0),
    "rewind": ("rewound_epochs", 0.0),
}


def update_settings(
    configs: Sequence[Config], networks: Sequence[NetworkSpec], by_parameter: Tensor | None
) -> UpdateSettings:
    """All settings of the updates but the learning rates; runs of one optimizer and one shape.

    Args:
        by_parameter: see `rates_and_decays`.
    """
    cfgs, names = [cfg.optimizer for cfg in configs], list(networks[0].shapes)
    decay: Tensor | list[Tensor] = torch.tensor([cfg.weight_decay for cfg in cfgs], dtype=torch.float64)
    arguments = [OPTIMIZERS[cfgs[0].name].arguments(cfg) for cfg in cfgs]
    matrices = hidden_matrices(networks[0])
    return UpdateSettings(
        name=cfgs[0].name,
        per_run={key: torch.tensor([run[key] for run in arguments], dtype=torch.float64) for key in arguments[0]},
        weight_decay=decay if by_parameter is None else list(by_parameter[..., 1]),
        decoupled=torch.tensor([is_decoupled(cfg) for cfg in cfgs]),
        matrices=[name in matrices for name in names],
        extras=_extras(configs),
    )


_factors = ByObject(epoch_factors)  # most runs share the objects of their settings


class LearningRates:
    """The learning rates of R runs, each by its own schedule.

    Args:
        records: of each run, from which the state of a plateau schedule is rebuilt.
        steps: of an epoch.
        by_parameter: see `rates_and_decays`.
    """

    def __init__(
        self, configs: Sequence[Config], records: Sequence[RunRecord], steps: int, by_parameter: Tensor | None
    ) -> None:
        self._steps = steps
        self._plateaus = {
            run: Plateau(cfg.optimizer, cfg.monitor, [row[cfg.monitor] for row in record.history])
            for run, (cfg, record) in enumerate(zip(configs, records, strict=True))
            if SCHEDULES.entry_with(cfg.optimizer.schedule, cfg.optimizer.options).follows_monitor
        }
        # runs of one schedule have the same factors, unless their own metrics decide
        self._first_of: list[tuple[int, Config]] = []  # the first run of each group
        numbers: dict[tuple[int, ...], int] = {}
        groups = []
        for run, cfg in enumerate(configs):
            key = id(cfg.optimizer), cfg.trainer.max_epochs, id(cfg.swa), run if run in self._plateaus else -1
            if key not in numbers:
                numbers[key] = len(numbers)
                self._first_of.append((run, cfg))
            groups.append(numbers[key])
        self._groups = np.array(groups)  # (R,)
        # (R,), or (P, R) where those of a run differ
        self._bases = torch.tensor([cfg.optimizer.lr for cfg in configs], dtype=torch.float64)
        if by_parameter is not None:
            self._bases = by_parameter[..., 0]

    def in_epoch(self, runs: Sequence[int], epoch: int) -> Tensor | list[Tensor]:
        """The rates of these runs in an epoch: (A,) or (S, A), or one such tensor for each parameter."""
        present, place = np.unique(self._groups[runs], return_inverse=True)
        factors = [
            _factors(cfg.optimizer, epoch, cfg.trainer.max_epochs, self._steps, self._reduced(run), cfg.swa)
            for run, cfg in (self._first_of[group] for group in present.tolist())
        ]
        longest = max(map(len, factors))
        table = np.array([row * (longest // len(row)) for row in factors])  # (groups, S)
        by_step = torch.from_numpy(table[place, 0] if longest == 1 else table.T[:, place])  # (A,) or (S, A)
        bases = self._bases[..., torch.tensor(runs)]
        return bases * by_step if bases.ndim == 1 else [row * by_step for row in bases]

    def _reduced(self, run: int) -> float:
        return self._plateaus[run].factor if run in self._plateaus else 1.0

    def update_plateaus(self, runs: Sequence[int], monitored: Sequence[float]) -> None:
        """Update the plateau schedules of runs with their monitored metrics at the end of an epoch."""
        for run, value in zip(runs, monitored, strict=True) if self._plateaus else ():
            if run in self._plateaus:
                self._plateaus[run].update(value)


def rates_and_decays(configs: Sequence[Config], networks: Sequence[NetworkSpec]) -> Tensor | None:
    """Learning rate and weight decay of each parameter, (P, R, 2); None where those of a run are alike."""
    settings = [
        parameter_settings(cfg.model, cfg.optimizer, network) for cfg, network in zip(configs, networks, strict=True)
    ]
    if not any(settings):
        return None
    pairs = [
        [
            (cfg.optimizer.lr, cfg.optimizer.weight_decay) if run_settings is None else run_settings[name]
            for cfg, run_settings in zip(configs, settings, strict=True)
        ]
        for name in networks[0].shapes
    ]
    return torch.tensor(pairs, dtype=torch.float64)


def _extras(configs: Sequence[Config]) -> dict[str, Tensor]:
    """Clipping, averaging and pruning, where a run has any."""
    extras = {}
    for name, (key, neutral) in EXTRAS.items():
        values = [attrgetter(key)(cfg) for cfg in configs]
        if any(value is not None for value in values):
            extras[name] = torch.tensor([neutral if value is None else value for value in values], dtype=torch.float64)
    return extras
