"""Checks of a configuration: a plain mapping becomes a typed `Config`, or an error with a sentence for each problem."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mlpexp.config import (
    loss_checks,
    model_checks,
    optimizer_checks,
    schema,
    trainer_flags,
    user_network,
    user_options,
    value_messages,
)
from mlpexp.config.field_types import PLUGINS
from mlpexp.config.overrides import spell
from mlpexp.config.schema import Config
from mlpexp.config.training_config import TrainerConfig
from mlpexp.config.unknown_keys import unknown_key
from mlpexp.data import data_config
from mlpexp.runtime import user_code
from mlpexp.runtime.errors import ConfigError
from mlpexp.tracking.trackers import NONE, TRACKERS

BUILT = ("callbacks", "logger")  # from the user's own classes
_ADAPTER = TypeAdapter(Config)


def parse(mapping: Mapping[str, Any], directory: Callable[[], Path] | None = None, *, recorded: bool = False) -> Config:
    """The typed configuration in `mapping` (resolved, plain builtins, as Hydra composed it).

    Its plugins are imported first, because they add to the choices.

    Args:
        directory: gives the directory from which relative paths of data files and plugins are taken; None leaves those
            of data files relative, and takes the others from the working directory.
        recorded: the mapping comes from a run's files, which another person may have written.

    Raises:
        UserError: a plugin cannot be imported.
        ConfigError: naming every problem, one line each.
    """
    home = Path.cwd if directory is None else directory
    plain = {key: value for key, value in mapping.items() if key != "hydra"}
    problems = list(_misplaced_targets(plain))
    digests = _load_plugins(plain, home, recorded=recorded)
    if not recorded:
        problems += _separate_arguments(plain)
    problems += _separate_flags(plain)
    cfg, error = _validated(plain, digests)
    if error is not None:
        problems += value_messages.messages(error)
    if cfg is None:
        raise ConfigError(problems)
    cfg, wrong = user_options.settled(cfg, is_valid=_validity(error))
    problems += wrong
    if error is None:  # contradictions of defaults that replaced refused values would be none of the user's
        problems += _contradictions(cfg)
    if not recorded:
        problems += _missing_trackers(cfg)
        cfg, wrong = user_network.settled(cfg, home())
        problems += wrong
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return cfg if directory is None else replace(cfg, data=cfg.data.relative_to(directory))


def from_plain(plain: Mapping[str, Any]) -> Config:
    """The configuration of which `schema.plain` made these nested builtins, e.g. out of a checkpoint; as `parse`.

    Keys of earlier schemas are left out.
    """
    trainer = plain.get("trainer")
    if isinstance(trainer, Mapping) and isinstance(flags := trainer.get("flags"), Mapping):
        plain = {**plain, "trainer": {**flags, **{key: trainer[key] for key in trainer if key != "flags"}}}
    for group, removed in schema.REMOVED.items():
        if isinstance(part := plain.get(group), Mapping):
            plain = {**plain, group: {key: value for key, value in part.items() if key not in removed}}
    return parse(plain, recorded=True)


def refuse_keys_of_sweeps(cfg: Config, advice: str) -> None:
    """Raise `ConfigError` for keys that a run alone cannot follow; `advice` says what to do."""
    sweep_keys = {
        "dry_run=true shows the plan of a sweep": cfg.dry_run,
        "halving.rungs compares the runs of a sweep": cfg.halving.rungs is not None and cfg.resume is None,
        "record=table belongs to a sweep": cfg.record == "table",
    }
    if problems := [f"{message}; {advice}" for message, is_set in sweep_keys.items() if is_set]:
        raise ConfigError(problems)


def _load_plugins(plain: dict[str, Any], home: Callable[[], Path], *, recorded: bool) -> frozenset[str]:
    """Import the plugins and write their digests into the mapping; returns the digests.

    What is no list of texts stays as it is: the schema refuses it.
    """
    names = plain.get("plugins")
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
        return frozenset()
    directory = home()
    plugins = [user_code.load(name, directory, recorded=recorded) for name in names]
    plain["plugins"] = list(dict.fromkeys(plugin.spelled for plugin in plugins))
    return frozenset(plugin.digest for plugin in plugins)


def _separate_arguments(plain: dict[str, Any]) -> list[str]:
    """Put the arguments of a user-defined network below `model.arguments`; returns messages for computed keys."""
    model = plain.get("model")
    if not isinstance(model, Mapping):
        return []
    if model.get("_target_") is None:
        return [unknown_key(f"model.{key}") for key in model if key in user_network.COMPUTED]
    plain["model"] = user_network.typed_arguments(model)
    return []


def _separate_flags(plain: dict[str, Any]) -> Iterator[str]:
    """Put the flags of Lightning's Trainer below `trainer.flags`; yields a message for each that cannot be given."""
    if isinstance(trainer := plain.get("trainer"), Mapping):
        keys = set(TrainerConfig.__pydantic_fields__) - {"flags"}  # type: ignore[attr-defined]
        flags = {key: value for key, value in trainer.items() if key not in keys}
        plain["trainer"] = {key: value for key, value in trainer.items() if key in keys} | {"flags": flags}
        yield from trainer_flags.problems(flags)


def _validated(plain: Mapping[str, Any], digests: frozenset[str]) -> tuple[Config | None, ValidationError | None]:
    """The typed configuration, and the error of pydantic for its refused values.

    Refused values are replaced by defaults, so that the others can be checked; None where that is impossible.

    Args:
        digests: of the plugins whose entries are choices.
    """
    token = PLUGINS.set(digests)
    try:
        return _ADAPTER.validate_python(plain), None
    except ValidationError as error:
        return _without_refused(plain, error), error
    finally:
        PLUGINS.reset(token)


def _without_refused(plain: Mapping[str, Any], error: ValidationError) -> Config | None:
    """The configuration with the defaults of the refused keys; None where it is still refused."""
    accepted: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in plain.items()
    }
    for problem in error.errors(include_url=False):
        section, *below = (str(part) for part in problem["loc"])
        if below and isinstance(accepted.get(section), dict) and below[0] in accepted[section]:
            del accepted[section][below[0]]
        else:
            accepted.pop(section, None)
    try:
        return _ADAPTER.validate_python(accepted)
    except ValidationError:
        return None


def _validity(error: ValidationError | None) -> Callable[[str, str], bool]:
    """A function of a section and a key: whether the value was accepted, not replaced by a default."""
    refused = set() if error is None else {tuple(map(str, problem["loc"][:2])) for problem in error.errors()}
    return lambda section, key: (section, key) not in refused and (section,) not in refused


def _misplaced_targets(plain: Mapping[str, Any]) -> Iterator[str]:
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


def _contradictions(cfg: Config) -> Iterator[str]:
    yield from _unread_keys(cfg)
    yield from model_checks.problems(cfg)
    yield from data_config.contradictions(cfg.data, resumed=cfg.resume is not None)
    yield from loss_checks.problems(cfg)
    yield from optimizer_checks.problems(cfg)
    yield from _halving(cfg)
    yield from _parallel(cfg)
    yield from _variant(cfg)
    epochs = cfg.trainer.max_epochs
    if cfg.diagnostics_every != 1 and not cfg.diagnostics:
        yield "diagnostics_every needs diagnostics=[…]; or leave it out"
    if cfg.diagnostics and cfg.diagnostics_every > epochs:
        yield (
            f"diagnostics_every={cfg.diagnostics_every} is beyond trainer.max_epochs={epochs}: nothing "
            f"would be measured; give at most {epochs}"
        )
    if cfg.tracking.weights is not None and cfg.record == "table":
        yield "tracking.weights=every writes into a run's directory, which record=table has not: leave one of them out"
    if cfg.keep_weights and cfg.record != "table":
        yield "keep_weights=true belongs to record=table; a run's directory has checkpoints anyway: leave it out"
    if NONE in cfg.tracker and len(set(cfg.tracker)) > 1:
        yield f"tracker={spell(list(cfg.tracker))} names none beside others; leave one of them out"


def _missing_trackers(cfg: Config) -> Iterator[str]:
    for name in cfg.trackers:
        if missing := TRACKERS[name].missing():
            yield (
                f"tracker={name} needs {' and '.join(missing)}; install it with: "
                f"pip install 'mlpexp[{TRACKERS[name].extra}]'"
            )


def _unread_keys(cfg: Config) -> Iterator[str]:
    """One sentence for each key, such as `optimizer.betas`, that was set and that the chosen entry does not read."""
    for section, entries in user_options.chosen_entries(cfg).items():
        if section == "data" or (section == "model" and cfg.model.target is not None):  # have checks of their own
            continue
        settings = getattr(cfg, section)
        for (registry, chosen), (_, by) in zip(entries, user_options.SECTIONS[section], strict=True):
            for key, names in registry.readers.items():
                default = schema.default_values()[f"{section}.{key}"]
                if chosen not in names and getattr(settings, key) != default:
                    owners = " or ".join(f"{section}.{by}={name}" for name in names)
                    yield f"{section}.{key} needs {owners}; leave it at {spell(default)} with {section}.{by}={chosen}"


def _halving(cfg: Config) -> Iterator[str]:
    rungs, epochs = cfg.halving.rungs, cfg.trainer.max_epochs
    if rungs is not None and (not rungs or any(a >= b for a, b in pairwise([*rungs, epochs]))):
        yield (
            f"halving.rungs={spell(rungs)} must rise and end below trainer.max_epochs={epochs}, the last rung; "
            "e.g. halving.rungs=[1,3,9] trainer.max_epochs=27"
        )


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


def _variant(cfg: Config) -> Iterator[str]:
    if cfg.model.variant == "torch_nn":
        return
    if cfg.optimizer.name != "sgd":
        yield (
            f"model.variant={cfg.model.variant} updates its parameters itself and supports sgd only; set "
            f"optimizer.name=sgd, or model.variant=torch_nn for optimizer.name={cfg.optimizer.name}"
        )
    for flag in ("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches"):
        neutral = (None, 1) if flag == "accumulate_grad_batches" else (None,)
        if cfg.trainer.flags.get(flag) not in neutral:
            yield (f"trainer.{flag} needs an optimizer of torch's; leave it out, or set model.variant=torch_nn")
