"""Checks of a configuration: from a plain mapping to a typed `Config`, or one sentence for each problem."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import TypeAdapter, ValidationError

from mlpexp import data
from mlpexp.config import loss_checks, plugin_keys, schema, user_network
from mlpexp.config.field_types import PLUGINS
from mlpexp.config.overrides import shell_word, spell
from mlpexp.config.schema import Config, ModelConfig
from mlpexp.data import data_config
from mlpexp.data.data_sets import DATA_SETS, Sizes
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.initialisation import INITIALISERS
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.schedules import SCHEDULES
from mlpexp.runtime import portable, shell_commands, user_code
from mlpexp.runtime.errors import ConfigError, UserError
from mlpexp.tracking.trackers import NONE, TRACKERS

# the flags of lightning.pytorch.Trainer; a test holds this list against the installed signature
TRAINER_FLAGS = frozenset(
    [
        "accelerator",
        "accumulate_grad_batches",
        "barebones",
        "benchmark",
        "callbacks",
        "check_val_every_n_epoch",
        "default_root_dir",
        "detect_anomaly",
        "deterministic",
        "devices",
        "enable_autolog_hparams",
        "enable_checkpointing",
        "enable_model_summary",
        "enable_progress_bar",
        "fast_dev_run",
        "gradient_clip_algorithm",
        "gradient_clip_val",
        "inference_mode",
        "limit_predict_batches",
        "limit_test_batches",
        "limit_train_batches",
        "limit_val_batches",
        "log_every_n_steps",
        "logger",
        "max_epochs",
        "max_steps",
        "max_time",
        "min_epochs",
        "min_steps",
        "model_registry",
        "num_nodes",
        "num_sanity_val_steps",
        "overfit_batches",
        "plugins",
        "precision",
        "profiler",
        "reload_dataloaders_every_n_epochs",
        "strategy",
        "sync_batchnorm",
        "use_distributed_sampler",
        "val_check_interval",
    ]
)
# flags that mlpexp sets itself, and the key to use instead
OWN_FLAGS = {
    "callbacks": "add yours below callbacks, e.g. +callbacks.mine._target_=…",
    "logger": "add yours below logger, e.g. +logger.mine._target_=…",
    "default_root_dir": "the run's directory is Hydra's, e.g. hydra.run.dir=DIR",
    "enable_checkpointing": "the checkpoints belong to the run's directory",
    "barebones": "it would leave out the metrics that a run is for",
}
# values of other flags with which a run would have no training or no metrics
REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "limit_train_batches": (lambda value: value == 0, "nothing would be trained"),
    "limit_val_batches": (lambda value: value == 0, "every epoch is validated"),
    "limit_test_batches": (lambda value: value == 0, "a run without a test is data.test_fraction=0"),
    "check_val_every_n_epoch": (lambda value: value != 1, "every epoch is validated"),
    "num_nodes": (lambda value: value != 1, "a run trains on one device"),
}
BUILT = ("callbacks", "logger")  # from the user's own classes
_PLUGIN = "my_plugin.py"
# examples for keys whose default does not show what to type
EXAMPLES: dict[str, Any] = {
    "model.depth": 2,
    "model.dropout": 0.2,
    "model.input_dropout": 0.2,
    "data.folds": 5,
    "early_stopping.patience": 5,
    "tracking.figures": False,
    "tracking.diagnostics": False,
    "stack.threads": 2,
    "stack.memory_mib": 2000,
    "halving.rungs": [1, 3, 9],
    "metrics": ["f1", "auroc"],
    "loss.name": "mse",
    "name": "depths",
    "plugins": [_PLUGIN],
    "tracker": "csv",
}
# names of the same keys in other programs
SYNONYMS = {
    "learning_rate": "optimizer.lr",
    "epochs": "trainer.max_epochs",
    "hidden_size": "model.width",
    "hidden": "model.width",
    "units": "model.width",
    "layers": "model.depth",
    "nonlinearity": "model.activation",
    "dropout_rate": "model.dropout",
    "normalization": "model.norm",
    "normalisation": "model.norm",
    "batch_norm": "model.norm",
    "layer_norm": "model.norm",
    "use_bias": "model.bias",
}

_ADAPTER = TypeAdapter(Config)
_DEFAULTS = {key: default for key, default, _ in schema.keys()}


def parse(mapping: Mapping[str, Any], directory: Callable[[], Path] | None = None, *, recorded: bool = False) -> Config:
    """The typed configuration in `mapping` (resolved, plain builtins, as Hydra composed it).

    Its plugins are imported first, because they add to the choices.

    Args:
        directory: gives the directory from which relative paths of data files and plugins are taken; None leaves those
            of data files relative, and takes the others from the working directory.
        recorded: the mapping is a run's, which may be somebody else's.

    Raises:
        UserError: a plugin cannot be imported.
        ConfigError: naming every problem, one line each.
    """
    plain = {key: value for key, value in mapping.items() if key != "hydra"}
    problems = list(_targets(plain))
    digests = []
    if _are_texts(plugins := plain.get("plugins")):  # or else the schema refuses them
        # first: without a plugin, other names would only seem to be wrong
        plain["plugins"] = _loaded_plugins(plugins, directory, recorded)
        digests = [digest for plugin in plain["plugins"] if (digest := user_code.digest_of(plugin))]
    model = plain.get("model")
    if not recorded and isinstance(model, Mapping):
        if model.get("_target_") is not None:
            plain["model"] = user_network.typed_arguments(model)
        else:
            problems += [unknown_key(f"model.{key}") for key in model if key in user_network.COMPUTED]
    if isinstance(trainer := plain.get("trainer"), Mapping):
        known = set(schema.TrainerConfig.__pydantic_fields__) - {"flags"}  # type: ignore[attr-defined]
        flags = {key: value for key, value in trainer.items() if key not in known}
        plain["trainer"] = {key: value for key, value in trainer.items() if key in known} | {"flags": flags}
        problems += _flags(flags)
    token = PLUGINS.set(frozenset(digests))
    try:
        cfg = _ADAPTER.validate_python(plain)
    except ValidationError as error:
        raise ConfigError(problems + _sentences(error)) from None
    finally:
        PLUGINS.reset(token)
    problems += _contradictions(cfg)
    if not recorded:
        problems += _missing_trackers(cfg)
    if problems:
        raise ConfigError(problems)
    if not recorded:
        cfg = user_network.settled(cfg, Path.cwd() if directory is None else directory())
    return cfg if directory is None else replace(cfg, data=cfg.data.relative_to(directory))


def from_plain(plain: Mapping[str, Any]) -> Config:
    """The configuration of which `schema.plain` made these nested builtins, e.g. out of a checkpoint; as `parse`.

    Keys of earlier schemas are left out.
    """
    trainer = plain.get("trainer")
    if isinstance(trainer, Mapping) and isinstance(flags := trainer.get("flags"), Mapping):
        plain = {**plain, "trainer": {**flags, **{key: trainer[key] for key in trainer if key != "flags"}}}
    for group, gone in schema.REMOVED.items():
        if isinstance(part := plain.get(group), Mapping):
            plain = {**plain, group: {key: value for key, value in part.items() if key not in gone}}
    return parse(plain, recorded=True)


def _are_texts(given: object) -> TypeGuard[Sequence[str]]:
    return isinstance(given, list | tuple) and all(isinstance(plugin, str) and plugin.strip() for plugin in given)


def _loaded_plugins(given: Sequence[str], directory: Callable[[], Path] | None, recorded: bool) -> list[str]:
    """Import plugins; with the digests of their sources, each once."""
    home = Path.cwd() if directory is None else directory()
    return list(dict.fromkeys(user_code.load(plugin, home, recorded=recorded).spelled for plugin in given))


def unknown_key(key: str) -> str:
    """The message for a key that does not exist, with the most similar key that does."""
    if key.startswith(("hydra.sweeper.", "hydra.launcher.")):
        return plugin_keys.unknown_key(key)
    group, _, last = key.rpartition(".")
    candidates = [name for name in _DEFAULTS if name not in schema.NOT_TYPED]
    same = [name for name in candidates if name.rsplit(".", 1)[-1] == last]  # without its group, such as lr=0.1
    close = same or get_close_matches(key, candidates, n=1, cutoff=0.7)
    if group == "trainer" and last in TRAINER_FLAGS:
        hint = f"it is a flag of lightning's Trainer: put a + in front, +{key}=…"
    elif group.startswith(("callbacks", "logger")):
        hint = f"to add it, put a + in front: +{key}=…"
    elif group == "hydra" or group.startswith("hydra."):
        hint = "it would be one of Hydra's own, which --cfg hydra lists"
    elif last in SYNONYMS:
        hint = f"did you mean {SYNONYMS[last]}?"
    elif close:
        hint = f"did you mean {close[0]}?"
    elif not group and (near := get_close_matches(key, {name.split(".")[0] for name in candidates}, n=1)):
        inside = next(name for name in candidates if name.startswith(near[0]))
        hint = f"did you mean one of the keys below {near[0]}, e.g. {inside}?"
    else:
        hint = f"`{shell_commands.plain('train.py')} --help` lists all keys"
    return f"unknown key '{key}'; {hint}"


def _targets(plain: Mapping[str, Any]) -> Iterator[str]:
    def walk(path: str, node: Mapping[str, Any]) -> Iterator[str]:
        for key, value in node.items():
            if key == "_target_" and not (path == "model" and isinstance(value, str | None)):
                yield (
                    f"_target_ has no place in '{path}': only model, callbacks and logger are built by _target_; "
                    "everything else is chosen by name, e.g. model.activation=relu"
                )
            elif isinstance(value, dict):
                yield from walk(f"{path}.{key}" if path else str(key), value)

    yield from walk("", {key: node for key, node in plain.items() if key not in BUILT})
    for group in BUILT:
        entries = plain.get(group)
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            if not isinstance(entry, Mapping) or not isinstance(entry.get("_target_"), str):
                yield f"{group}.{name} needs the name of a class, e.g. +{group}.{name}._target_=package.Class"


def _flags(flags: Mapping[str, Any]) -> Iterator[str]:
    for name, value in flags.items():
        if name in OWN_FLAGS:
            yield f"trainer.{name} is set by mlpexp; {OWN_FLAGS[name]}"
        elif name in REFUSED and REFUSED[name][0](value):
            yield f"trainer.{name}={spell(value)} is not possible: {REFUSED[name][1]}; leave it out"
        elif name not in TRAINER_FLAGS and name != "_target_":
            own = [key.removeprefix("trainer.") for key in _DEFAULTS if key.startswith("trainer.")]
            close = get_close_matches(name, [*TRAINER_FLAGS, *own], n=1)
            hint = f"did you mean trainer.{close[0]}?" if close else "see lightning.pytorch.Trainer for its flags"
            yield f"unknown key 'trainer.{name}'; {hint}"


def _sentences(error: ValidationError) -> list[str]:
    """One message for each key that pydantic rejects."""
    found: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        path = [str(part) for part in problem["loc"]]
        key = ".".join(path[:2]) if path[0] in Config.__pydantic_fields__ else path[0]  # type: ignore[attr-defined]
        if key not in _DEFAULTS and path[0] in _DEFAULTS:  # an item of a list
            key = path[0]
        if path[-1] == "_target_" and path[0] != "model":  # has a message of its own
            continue
        if key not in found:  # a union reports once for each of its arms
            found[key] = _sentence(".".join(path), key, problem["type"], problem["input"], problem.get("ctx", {}))
    return list(found.values())


def _sentence(path: str, key: str, kind: str, value: Any, allowed: Mapping[str, Any]) -> str:
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return unknown_key(path)
    given, example = f"{key}={spell(value)}", f"e.g. {key}={spell(EXAMPLES.get(key, _DEFAULTS.get(key)))}"
    if key == "model.width":
        return f"{given}: give a whole number from 1, or a list with one for each layer, e.g. {key}=64 or {key}=[64,32]"
    if key == "model.dropout":
        return f"{given}: give a share in [0, 1), or a list with one for each hidden layer, e.g. {key}=0.2"
    if key == "optimizer.betas":
        return f"{given}: give two shares in [0, 1), e.g. {shell_word(key, [0.9, 0.999])}"
    match kind:
        case "literal_error" | "unknown_choice":
            return _unknown_choice(key, value, allowed.get("choices"))
        case "int_type" | "int_from_float" | "int_parsing":
            return f"{given} is not a whole number; {example}"
        case "float_type" | "float_parsing":
            return f"{given} is not a number; {example}"
        case "finite_number":
            return f"{given} is not finite; {example}"
        case "bool_type":
            return f"{given} is neither true nor false; {example}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
            bound = " and ".join(f"{signs[name]} {limit:g}" if isinstance(limit, float) else f"{signs[name]} {limit}"
                                 for name, limit in allowed.items())  # fmt: skip
            return f"{given} is out of range: it must be {bound}; {example}"
        case "dataclass_type" | "dict_type":
            inner = [name for name in _DEFAULTS if name.startswith(f"{key}.")]
            hint = (
                f"set its keys one by one, e.g. {inner[0]}={spell(_DEFAULTS[inner[0]])}" if inner else "give a mapping"
            )
            return f"{given} replaces a whole group; {hint}"
        case "value_error":
            return f"{given} {allowed['error']}; leave it out, or set it to null"
        case "tuple_type" if key == "plugins" and not _are_texts([value]):
            return f"{given} is no list; {example}"
        case "tuple_type":
            names = [value if isinstance(value, str | int) and not isinstance(value, bool) else spell(value)]
            return f"{given}: give a list, e.g. {shell_word(key, names)}"
        case "string_type" if path == key and isinstance(value, list) and value:
            return f"{given}: give one name, not a list, e.g. {shell_word(key, value[0])}"
        case "string_type" if isinstance(value, bool | float):
            name = spell(value)
            return f"{given} is not text; quote it, e.g. {shell_word(key, name if path == key else [name])}"
    return f"{given} is not text; {example}"


def _unknown_choice(key: str, value: Any, names: Sequence[str] | None) -> str:
    choices = sorted(schema.choices()[key] if names is None else names)
    close = get_close_matches(str(value), choices, n=1)
    example = close[0] if close else _DEFAULTS[key] or choices[0]
    if isinstance(EXAMPLES.get(key, _DEFAULTS.get(key)), list | tuple):
        example = f"[{example}]"
    group, _, name = key.rpartition(".")
    what = group if name == "name" else name.removesuffix("s")
    own = "" if names is None else f"; one of your own is registered by a module, plugins=[{_PLUGIN}]"
    return f"unknown {what} {value!r}; choose one of {', '.join(choices)}, e.g. {key}={example}{own}"


def _parallel(cfg: Config) -> Iterator[str]:
    devices, strategy = cfg.trainer.flags.get("devices", 1), cfg.trainer.flags.get("strategy")
    if devices in (1, "1", "auto", [0]):
        return
    if strategy != "ddp_fork" or not isinstance(devices, int) or isinstance(devices, bool) or devices < 1:
        yield (
            f"trainer.devices={spell(devices)} is not possible: a run trains on one device, unless trainer=ddp trains "
            "it by several processes, e.g. trainer=ddp trainer.devices=2"
        )
    elif cfg.model.variant != "torch_nn":
        yield f"trainer=ddp is for model.variant=torch_nn; leave it out with model.variant={cfg.model.variant}"
    elif cfg.model.norm == "batch":
        yield "trainer=ddp would give each process batch statistics of its own; leave it out, or set model.norm=layer"
    elif cfg.model.input_dropout or cfg.model.dropout not in (0, [0] * len(cfg.model.hidden_sizes)):
        yield "trainer=ddp would give each process the same masks of dropout; leave it out, or set model.dropout=0"


def _missing_trackers(cfg: Config) -> Iterator[str]:
    for name in cfg.trackers:
        if missing := TRACKERS[name].missing():
            yield (
                f"tracker={name} needs {' and '.join(missing)}; install it with: "
                f"pip install 'mlpexp[{TRACKERS[name].extra}]'"
            )


def _contradictions(cfg: Config) -> Iterator[str]:
    yield from _architecture(cfg)
    yield from data_config.contradictions(cfg.data, resumed=cfg.resume is not None)
    yield from loss_checks.contradictions(cfg, _DEFAULTS)
    if cfg.diagnostics_every != 1 and not cfg.diagnostics:
        yield "diagnostics_every needs diagnostics=[…]; or leave it out"
    if cfg.diagnostics and cfg.diagnostics_every > cfg.trainer.max_epochs:
        yield (
            f"diagnostics_every={cfg.diagnostics_every} is beyond trainer.max_epochs={cfg.trainer.max_epochs}: nothing "
            f"would be measured; give at most {cfg.trainer.max_epochs}"
        )
    if cfg.tracking.weights is not None and cfg.record == "table":
        yield "tracking.weights=every writes into a run's directory, which record=table has not: leave one of them out"
    if cfg.keep_weights and cfg.record != "table":
        yield "keep_weights=true belongs to record=table; a run's directory has checkpoints anyway: leave it out"
    if NONE in cfg.tracker and len(set(cfg.tracker)) > 1:
        yield f"tracker={spell(list(cfg.tracker))} names none beside others; leave one of them out"
    optimizer, epochs = cfg.optimizer, cfg.trainer.max_epochs
    for key in sorted({key for rule in OPTIMIZERS.values() for key in rule.keys} - {*OPTIMIZERS[optimizer.name].keys}):
        default = _DEFAULTS[f"optimizer.{key}"]
        if getattr(optimizer, key) != default:
            owners = " or ".join(f"optimizer.name={name}" for name, rule in OPTIMIZERS.items() if key in rule.keys)
            yield f"optimizer.{key} needs {owners}; leave it at {spell(default)} with optimizer.name={optimizer.name}"
    if optimizer.nesterov and optimizer.momentum == 0 and "nesterov" in OPTIMIZERS[optimizer.name].keys:
        yield f"optimizer.nesterov=true needs momentum, e.g. optimizer.name={optimizer.name} optimizer.momentum=0.9"
    rule = OPTIMIZERS[optimizer.name]
    if optimizer.weight_decay > 0 and not rule.has_decay:
        yield (
            f"optimizer.name={optimizer.name} has no weight decay; leave optimizer.weight_decay out, or choose another "
            "optimizer"
        )
    if optimizer.weight_decay == 0 and (optimizer.decay is not None or not optimizer.decay_bias):
        key = "decay" if optimizer.decay is not None else "decay_bias"
        yield f"optimizer.{key} needs a weight decay, e.g. optimizer.weight_decay=0.01; or leave it out"
    if cfg.model.parametrization == "mup" and rule.is_adaptive is None:
        yield (
            f"model.parametrization=mup has no rule for optimizer.name={optimizer.name}; choose another optimizer, "
            "e.g. optimizer.name=adamw, or model.parametrization=standard"
        )
    if optimizer.name == "muon" and not cfg.model.hidden_sizes:
        yield (
            "optimizer.name=muon trains weight matrices below the logits, and model.depth=0 has none; give at least "
            "model.depth=1, or choose optimizer.name=adamw"
        )
    if optimizer.warmup_epochs > 0 and optimizer.warmup_steps > 0:
        yield "optimizer.warmup_epochs and optimizer.warmup_steps both say how long the warm-up is; leave one out"
    yield from _clipping(cfg)
    yield from _pruning(cfg)
    if cfg.ema.decay is not None and cfg.swa.start is not None:
        yield "ema.decay and swa.start both say with which average of the weights to evaluate; leave one out"
    if (cfg.ema.decay is not None or cfg.swa.start is not None) and cfg.model.norm == "batch":
        key = "ema.decay" if cfg.ema.decay is not None else "swa.start"
        yield (
            f"{key} and model.norm=batch are not possible together: the running statistics belong to the weights, not "
            "to their average; choose model.norm=layer, or leave it out"
        )
    if cfg.swa.start is not None and cfg.swa.start >= epochs:
        yield f"swa.start={cfg.swa.start} is after the training; it must be < trainer.max_epochs={epochs}"
    for key in sorted(
        {key for entry in SCHEDULES.values() for key in entry.keys} - {*SCHEDULES[optimizer.schedule].keys}
    ):
        if getattr(optimizer, key) != (default := _DEFAULTS[f"optimizer.{key}"]):
            owners = " or ".join(f"optimizer.schedule={name}" for name, entry in SCHEDULES.items() if key in entry.keys)
            yield (
                f"optimizer.{key} needs {owners}; leave it at {spell(default)} with "
                f"optimizer.schedule={optimizer.schedule}"
            )
    if optimizer.warmup_epochs > epochs:
        yield (
            f"optimizer.warmup_epochs={optimizer.warmup_epochs} is longer than the training; "
            f"it must be <= trainer.max_epochs={epochs}"
        )
    if (rungs := cfg.halving.rungs) is not None and (not rungs or any(a >= b for a, b in pairwise([*rungs, epochs]))):
        yield (
            f"halving.rungs={spell(rungs)} must rise and end below trainer.max_epochs={epochs}, the last rung; "
            "e.g. halving.rungs=[1,3,9] trainer.max_epochs=27"
        )
    yield from _parallel(cfg)
    if cfg.model.variant != "torch_nn":
        if optimizer.name != "sgd":
            yield (
                f"model.variant={cfg.model.variant} updates its parameters itself and supports sgd only; set "
                f"optimizer.name=sgd, or model.variant=torch_nn for optimizer.name={optimizer.name}"
            )
        for flag in ("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches"):
            neutral = (None, 1) if flag == "accumulate_grad_batches" else (None,)
            if cfg.trainer.flags.get(flag) not in neutral:
                yield (f"trainer.{flag} needs an optimizer of torch's; leave it out, or set model.variant=torch_nn")


def _pruning(cfg: Config) -> Iterator[str]:
    prune, epochs = cfg.prune, cfg.trainer.max_epochs
    if prune.fraction is None:
        for key in ("rounds", "every", "rewind"):
            if getattr(prune, key) != _DEFAULTS[f"prune.{key}"]:
                yield f"prune.{key} needs prune.fraction, e.g. prune.fraction=0.8"
        return
    if prune.rounds * cfg.epochs_before_pruning >= epochs:
        yield (
            f"prune.rounds={prune.rounds} with prune.every={cfg.epochs_before_pruning} leaves no epoch after the last "
            f"pruning; their product must be < trainer.max_epochs={epochs}"
        )
    if cfg.ema.decay is not None or cfg.swa.start is not None:
        yield "prune.fraction and an average of the weights (ema.decay, swa.start) exclude each other; leave one out"
    rule = OPTIMIZERS[cfg.optimizer.name]
    if prune.rewind is not None and (rule.counts_steps or rule.trains_alone):
        fitting = [name for name, other in OPTIMIZERS.items() if not (other.counts_steps or other.trains_alone)]
        yield (
            f"prune.rewind={prune.rewind} begins the optimizer anew, but optimizer.name={cfg.optimizer.name} counts "
            f"steps; choose one of {', '.join(fitting)}, or leave prune.rewind out"
        )


def _clipping(cfg: Config) -> Iterator[str]:
    given = [f"optimizer.{key}" for key in ("clip_norm", "clip_value") if getattr(cfg.optimizer, key) is not None]
    if cfg.trainer.flags.get("gradient_clip_val") is not None:
        given.append("trainer.gradient_clip_val")
    if len(given) > 1:
        yield (
            f"{' and '.join(given)} clip the gradient; give only one of them, e.g. optimizer.clip_norm=1.0, which also "
            "trains in stacks"
        )
    if given and OPTIMIZERS[cfg.optimizer.name].trains_alone:
        yield (
            f"{given[0]} is not possible with optimizer.name={cfg.optimizer.name}, which evaluates the gradient "
            "several times in a step; leave it out, or choose another optimizer"
        )


def _architecture(cfg: Config) -> Iterator[str]:
    model = cfg.model
    if isinstance(model.width, list) and model.depth not in (None, len(model.width)):
        yield (
            f"model.depth={model.depth} and model.width={spell(model.width)} disagree: the list has "
            f"{len(model.width)} layers; leave model.depth out, or give model.depth={len(model.width)}"
        )
        return
    if model.target is not None:  # `user_network` has checks of its own
        return
    yield from _layers(cfg)
    for name, init in INITIALISERS.items():
        changed = any(getattr(model, key) != _DEFAULTS[f"model.{key}"] for key in init.keys)
        if changed and not set(init.keys) <= set(INITIALISERS[model.init].keys):
            keys = " and ".join(f"model.{key}" for key in init.keys)
            yield f"{keys} belong to model.init={name}, not to model.init={model.init}"
    if model.parametrization == "mup" and not INITIALISERS[model.init].scales_with_fan_in:
        fitting = [name for name, init in INITIALISERS.items() if init.scales_with_fan_in]
        yield (
            f"model.parametrization=mup needs an initialisation whose variance is a constant over the fan-in, which "
            f"model.init={model.init} is not; choose one of {', '.join(fitting)}, e.g. model.init=torch"
        )
    # of a table that has to be read first, `check_data` checks the rest
    sizes = DATA_SETS[cfg.data.name].sizes(cfg.data)
    yield from _memory(model, sizes or Sizes(1, 2, 1))
    if sizes is not None:
        yield from loss_checks.few_classes(cfg, sizes.classes)


def _layers(cfg: Config) -> Iterator[str]:
    model = cfg.model
    depth = len(model.width) if isinstance(model.width, list) else 1 if model.depth is None else model.depth
    for name, entry in ACTIVATIONS.items():
        if entry.key is None or entry.key == ACTIVATIONS[model.activation].key:
            continue
        if getattr(model, entry.key) != _DEFAULTS[f"model.{entry.key}"]:
            yield (
                f"model.{entry.key} belongs to model.activation={name}, not to model.activation={model.activation}; "
                "leave it out"
            )
    if isinstance(model.dropout, list) and len(model.dropout) != depth:
        yield (
            f"model.dropout={spell(model.dropout)} has {len(model.dropout)} rates for {depth} hidden layers; give "
            "one for each, or one number for all, e.g. model.dropout=0.2"
        )
    if model.norm_position != "pre" and model.norm == "none":
        yield "model.norm_position needs a norm, e.g. model.norm=layer; or leave it out"
    if model.norm == "batch" and cfg.data.batch_size == 1:
        yield (
            "model.norm=batch needs more than one sample in a batch, which data.batch_size=1 has not; set "
            "data.batch_size=32, or model.norm=layer"
        )
    if not model.bias and model.sigma_b:
        yield "model.sigma_b needs biases; leave it out with model.bias=false"
    if not model.residual and model.block_depth != 1:
        yield "model.block_depth needs model.residual=true; or leave it out"
    if model.residual and isinstance(hidden := model.width, list):
        size = model.block_depth
        # the first block may begin with another number of inputs, and has no skip then
        for first in range(size, len(hidden) - size + 1, size):
            if hidden[first - 1] != hidden[first + size - 1]:
                yield (
                    f"model.residual=true needs equal widths: the block of the hidden layers {first + 1} to "
                    f"{first + size} has {hidden[first - 1]} inputs and {hidden[first + size - 1]} outputs in "
                    f"model.width={spell(model.width)}; give equal numbers, or another model.block_depth"
                )


def check_data(cfg: Config) -> str | None:
    """Read and prepare a data set whose sizes are not known before, and check that the network fits.

    Returns:
        what was read, in one line; None where it was known before.

    Raises:
        UserError: the data cannot be used, or the network needs more memory than there is.
    """
    if DATA_SETS[cfg.data.name].sizes(cfg.data) is not None:
        return None
    found = data.prepare(cfg.data)
    user_network.check(cfg, Sizes(found.num_inputs, found.num_classes, len(found.labels)))
    for problem in loss_checks.few_classes(cfg, found.num_classes):
        raise UserError(problem)
    for problem in _memory(cfg.model, Sizes(found.num_inputs, found.num_classes, len(found.labels))):
        raise UserError(problem)
    return found.summary


def _memory(model: ModelConfig, sizes: Sizes) -> Iterator[str]:
    if model.target is not None:  # it is built to be checked
        return
    needed, there = memory_needed(model, *sizes), physical_memory()
    if needed > there:
        depth = "" if model.depth is None else f"model.depth={model.depth} "
        parameters = num_parameters(model, sizes.features, sizes.classes)
        yield (
            f"{depth}model.width={spell(model.width)} makes {parameters:,} parameters and would need about "
            f"{needed / 2**30:,.0f} GiB of memory; this machine has {there / 2**30:,.0f}, so choose a smaller network, "
            "e.g. model.depth=2 model.width=64"
        )


def memory_needed(model: ModelConfig, inputs: int = 64, classes: int = 10, samples: int = 1797) -> int:
    """A rough upper estimate in bytes of what training takes, without building anything."""
    if isinstance(model.width, list):
        depth, widest, units = len(model.width), max(model.width, default=0), sum(model.width)
    else:
        depth = 1 if model.depth is None else model.depth
        widest, units = model.width, depth * model.width
    # weights, gradients, two of the optimizer, the checkpoints of the best and of the last epoch, one more to write
    numbers = 7 * num_parameters(model, inputs, classes)
    numbers += 2 * samples * widest + 5 * 256 * units  # evaluation in one piece, and the layers' diagnostics
    return 4 * numbers + 20_000 * depth  # Python objects


@cache
def physical_memory() -> int:
    """Bytes of memory in this machine."""
    return portable.total_memory()


def num_parameters(model: ModelConfig, inputs: int = 64, classes: int = 10) -> int:
    """Weights and biases of the network, without building it (an int `width` costs no loop over depth)."""
    depth = len(model.width) if isinstance(model.width, list) else 1 if model.depth is None else model.depth
    same = replace(model, dropout=0.0)  # a list may have another length
    if isinstance(model.width, list) or depth <= 3:
        return same.network(inputs, classes).num_parameters
    # every further hidden layer adds as many parameters as the third
    two, three = (replace(same, depth=d).network(inputs, classes).num_parameters for d in (2, 3))
    return two + (depth - 2) * (three - two)
