"""The options of user-defined activations, losses, optimizers, ...: the keys below `options` of each section.

A part declares them in its plugin, see `runtime.declared_options`; the parts that a configuration names say which keys
there are, of which type, and with which default. A value that is the default is left out: it makes no other run.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from mlpexp.config.overrides import shell_word, spell
from mlpexp.config.schema import Config
from mlpexp.data.data_sets import DATA_SETS
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.initialisation import INITIALISERS
from mlpexp.nn.losses import LOSSES
from mlpexp.nn.normalisation import NORMS
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.schedules import SCHEDULES
from mlpexp.runtime.declared_options import Options
from mlpexp.runtime.errors import UserError, did_you_mean
from mlpexp.runtime.registry import Registry

# section -> the registries whose entries it names, with the key that does
SECTIONS: dict[str, tuple[tuple[Registry[Any], str], ...]] = {
    "model": ((ACTIVATIONS, "activation"), (INITIALISERS, "init"), (NORMS, "norm")),
    "data": ((DATA_SETS, "name"),),
    "loss": ((LOSSES, "name"),),
    "optimizer": ((OPTIMIZERS, "name"), (SCHEDULES, "schedule")),
}
NODES = tuple(f"{section}.options" for section in SECTIONS)


def chosen(cfg: Config) -> dict[str, list[tuple[Registry[Any], str]]]:
    """The entries that a configuration names, by section; `norm=none` is none."""
    entries = {
        section: [(registry, getattr(getattr(cfg, section), key)) for registry, key in parts]
        for section, parts in SECTIONS.items()
    }
    entries["loss"] = [(LOSSES, cfg.loss_function.name)]
    return entries


def keys() -> Iterator[str]:
    """Every key that an entry of a registry declares."""
    for section, parts in SECTIONS.items():
        for registry, _ in parts:
            for name in registry:
                yield from (f"{section}.options.{option}" for option in registry.options_of(name))


def described() -> Iterator[tuple[str, Any, str]]:
    """Every such key with its default and a line of help."""
    for section, parts in SECTIONS.items():
        for registry, key in parts:
            for name in registry:
                for option in registry.options_of(name).values():
                    owner = f"{section}.{key}={name} only"
                    text = f"{owner}: {option.help}" if option.help else f"{owner} ({option.type})"
                    yield f"{section}.options.{option.name}", option.default, text


def value_of(cfg: Config, key: str) -> Any:
    """The value of such a key; its default where it is not given, and an empty text where no part has it."""
    section, _, name = key.split(".", 2)
    own = getattr(cfg, section).options
    if name in own:
        return own[name]
    parts = chosen(cfg)[section]
    return next((options[name].default for one in parts if name in (options := one[0].options_of(one[1]))), "")


def settled(cfg: Config, named: Callable[[str, str], bool]) -> tuple[Config, list[str]]:
    """The configuration with options of the types that are declared, without those at their default; and problems.

    Args:
        named: whether a section's key has the value that was given; where one has not, its options are unknown.
    """
    problems: list[str] = []
    parts: dict[str, Any] = {}
    for section, registries in SECTIONS.items():
        given = getattr(cfg, section).options
        if not all(named(section, key) for _, key in registries):
            continue
        if given and not (section == "model" and cfg.model.target is not None):
            options, wrong = _settled(cfg, section, given)
            parts[section] = replace(getattr(cfg, section), options=options)
            problems += wrong
    return (replace(cfg, **parts) if parts else cfg), problems


def _settled(cfg: Config, section: str, given: Options) -> tuple[Options, list[str]]:
    problems: list[str] = []
    kept: dict[str, Any] = {}
    named = chosen(cfg)[section]
    for name, value in given.items():
        key = f"{section}.options.{name}"
        owners = [(registry, entry) for registry, entry in named if name in registry.options_of(entry)]
        if not owners:
            if (problem := _foreign(section, name, value, named)) is not None:
                problems.append(problem)
        elif len(owners) > 1:
            both = " and ".join(f"{registry.kind} {entry!r}" for registry, entry in owners)
            problems.append(f"{key} is an option of {both}; rename it in one of them")
        else:
            [(registry, entry)] = owners
            option = registry.options_of(entry)[name]
            try:
                if (checked := option.check(value)) != option.default:
                    kept[name] = checked
            except ValueError as error:
                problems.append(f"{key}={spell(value)}: {error}; e.g. {shell_word(key, option.default)}")
    if not problems:
        for registry, entry in named:
            try:
                if registry.options_of(entry):
                    registry.at(entry, kept)
            except UserError as error:
                words = " ".join(shell_word(f"{section}.options.{key}", value) for key, value in kept.items())
                problems.append(f"{words}: {error}")
    return Options(kept), problems


def _foreign(section: str, name: str, value: Any, named: list[tuple[Registry[Any], str]]) -> str | None:
    """What is wrong with an option that no part of the configuration declares; None for another part's default."""
    key = f"{section}.options.{name}"
    owners = {
        f"{section}.{by}={entry}": declared[name].default
        for registry, by in SECTIONS[section]
        for entry in registry
        if name in (declared := registry.options_of(entry))
    }
    if owners:
        if value in owners.values():
            return None
        owner, default = next(iter(owners.items()))
        return f"{key}={spell(value)} belongs to {owner}; with others leave it at {spell(default)}, or leave it out"
    own = [option for registry, entry in named for option in registry.options_of(entry)]
    if own:
        listed = f"there are {', '.join(f'{section}.options.{option}' for option in own)}"
        return f"unknown key '{key}'; {did_you_mean(name, own, listed, prefix=f'{section}.options.')}"
    parts = " and ".join(f"{registry.kind} {entry!r}" for registry, entry in named if entry in registry)
    return f"unknown key '{key}'; {parts} declare none: options are keyword-only arguments of a function in a plugin"
