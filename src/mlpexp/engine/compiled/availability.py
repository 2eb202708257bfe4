"""Which runs the compiled engine can train, and whether this machine can use it. Does not import numba.

The torch engine trains all other runs: those with another kind of layer, a field of a layer that is not at its default,
an activation without a compiled form, another optimizer, or a configuration key that is not listed here.
"""

import os
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from operator import attrgetter
from typing import Any

from mlpexp.config import schema
from mlpexp.config.schema import Config
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.layers import Activate, Gate, Linear
from mlpexp.nn.losses import CROSS_ENTROPY
from mlpexp.nn.metrics import METRICS
from mlpexp.nn.network import NetworkSpec

# each is a function of `updates.py`, with the keys of `UpdateSettings.per_run` that are its `numbers`, in their order
COMPILED_OPTIMIZERS = {"sgd": ("momentum", "nesterov"), "adam": ("betas", "eps"), "adamw": ("betas", "eps")}

# of all runs together, from which compiled functions draw: compiling them takes as long as torch for 100,000 epochs
MIN_EPOCHS = 5000

# keys of which the engine supports every value, or that do not reach it; every other key must have its default
SUPPORTED_KEYS = {
    "": "seed name monitor metrics plugins test_weights threads record keep_weights dry_run report resume "
    "diagnostics diagnostics_every callbacks logger tracker",
    "model": "variant depth width activation init sigma_w sigma_b parametrization base_width options",
    "data": "name task split val_fraction test_fraction seed folds fold label_noise class_weight batch_size shuffle "
    "path target val_path test_path separator decimal thousands encoding columns drop categorical missing samples "
    "noise classes options",
    "loss": "name label_smoothing delta options",
    "optimizer": "name lr momentum nesterov betas eps weight_decay decay_bias schedule step_epochs step_factor "
    "warmup_epochs warmup_steps patience pct_start options",
    "early_stopping": "patience min_delta",
    "trainer": "max_epochs accelerator enable_progress_bar flags",
    "tracking": "tensorboard figures diagnostics test_hits weights",
    "stack": "engine threads memory_mib save_every_s",
    "halving": "rungs factor",
}


def unsupported_run(cfg: Config) -> str | None:
    """Why a run cannot be trained by compiled code; None where it can."""
    for key, read, default in _other_keys():
        if (value := read(cfg)) != default:
            return f"{key}={value} has no compiled form"
    if cfg.loss_function != CROSS_ENTROPY:
        smoothing = f" with loss.label_smoothing={cfg.loss.label_smoothing}" if cfg.loss.label_smoothing else ""
        return f"the loss {cfg.loss_function.name!r}{smoothing} has no compiled form"
    if names := [name for name in cfg.metric_names if METRICS[name].needs_outputs]:
        return f"the metric {names[0]!r} is computed from outputs, which the compiled engine does not keep"
    return unsupported(cfg.model.network(1, 2), cfg.optimizer.name)


def unsupported(network: NetworkSpec, optimizer: str) -> str | None:
    """Why a network cannot be trained by compiled code with this optimizer; None where it can."""
    activations = {layer for layer in network.layers[1::2] if type(layer) is Activate}
    dense = [layer for layer in network.layers[::2] if type(layer) is Linear]
    plain: list[Any] = [Linear(layer.inputs, layer.outputs) for layer in dense]
    between = list(activations) * (len(plain) - 1)
    expected = [layer for pair in zip(plain, between, strict=False) for layer in pair] + plain[-1:]
    if gated := [layer.name for layer in network.layers if isinstance(layer, Gate)]:
        return f"the gated activation {gated[0]!r} has no compiled form; choose one of {_compiled_activations()}"
    if len(activations) > 1 or list(network.layers) != expected:
        return "only plain dense layers with one activation between them have a compiled form"
    for layer in activations:
        if layer.name not in ACTIVATIONS or layer.entry.compiled is None:
            return f"the activation {layer.name!r} has no compiled form; choose one of {_compiled_activations()}"
    if optimizer not in COMPILED_OPTIMIZERS:
        return f"the optimizer {optimizer!r} has no compiled form; choose one of {', '.join(COMPILED_OPTIMIZERS)}"
    return None


def _compiled_activations() -> str:
    return ", ".join(name for name, entry in ACTIVATIONS.items() if entry.compiled and not entry.gated)


def activation_of(network: NetworkSpec) -> str:
    """The activation of all hidden layers; `identity` without hidden layers."""
    return next((layer.name for layer in network.layers if isinstance(layer, Activate)), "identity")


@cache
def _other_keys() -> list[tuple[str, Callable[[Config], Any], Any]]:
    """Every key of the configuration that is not among `SUPPORTED_KEYS`, with its default."""
    supported = {
        ".".join(filter(None, (section, key))) for section, keys in SUPPORTED_KEYS.items() for key in keys.split()
    }
    defaults = Config()
    unsupported_keys = [(key, attrgetter(key)) for key, _, _ in schema.keys() if key not in supported]
    return [(key, read, read(defaults)) for key, read in unsupported_keys]


def draws(configs: Iterable[Config]) -> bool:
    """Whether orders and initial values of these runs are drawn by compiled functions, see `draws.py`.

    They have the same bits by torch, which is quicker for few runs.
    """
    devices = ("gpu", "cuda")
    epochs = (
        cfg.trainer.max_epochs
        for cfg in configs
        if cfg.stack.engine == "compiled" or cfg.trainer.accelerator in devices
    )
    return sum(epochs) >= MIN_EPOCHS and unavailable() is None


@cache
def unavailable() -> str | None:
    """Why the compiled engine cannot be used on this machine; None where it can."""
    if find_spec("numba") is None:
        return "numba is not installed; pip install 'mlpexp[fast]' trains stacks several times faster"
    import llvmlite.binding as llvm  # not numba itself, which imports scipy

    if os.environ.get("NUMBA_CPU_NAME"):  # numba then compiles for another processor
        features = os.environ.get("NUMBA_CPU_FEATURES", "").split(",")
    else:
        features = llvm.get_host_cpu_features().flatten().split(",")
    # arm64 always has it, as part of its floating-point unit
    if not {"+fma", "+neon", "+fp-armv8"} & set(features):
        return "this processor has no fused multiply-add"
    return None
