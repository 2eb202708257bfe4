"""The options of user-defined activations, losses, optimizers, ...: the keys below `options` of each section.

An entry of a registry declares them in its plugin, see `runtime.declared_options`: the keys that a configuration has
depend on the entries that it chooses. A value that is the default is left out, so that it does not change the run.
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
from mlpexp.runtime.declared_options import DeclaredOption, Options
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


def chosen_entries(cfg: Config) -> dict[str, list[tuple[Registry[Any], str]]]:
    """The registries of each section with the names that a configuration chooses; `norm=none` chooses no entry."""
    entries = {
        section: [(registry, getattr(getattr(cfg, section), key)) for registry, key in registries]
        for section, registries in SECTIONS.items()
    }
    entries["loss"] = [(LOSSES, cfg.loss_function.name)]
    return entries


def _declared() -> Iterator[tuple[str, str, DeclaredOption]]:
    """Section, choosing override (e.g. `model.activation=NAME`) and each option that an entry declares."""
    for section, registries in SECTIONS.items():
        for registry, key in registries:
            for name in registry:
                for option in registry.options_of(name).values():
                    yield section, f"{section}.{key}={name}", option


def keys() -> Iterator[str]:
    """Every key that an entry of a registry declares."""
    return (f"{section}.options.{option.name}" for section, _, option in _declared())


def described() -> Iterator[tuple[str, Any, str]]:
    """Every such key with its default and a line of help."""
    for section, owner, option in _declared():
        text = f"{owner} only: {option.help}" if option.help else f"{owner} only ({option.type})"
        yield f"{section}.options.{option.name}", option.default, text


def value_of(cfg: Config, key: str) -> Any:
    """The value of such a key; its default where it is not given, and an empty text where no entry declares it."""
    section, _, name = key.split(".", 2)
    values = getattr(cfg, section).options
    if name in values:
        return values[name]
    declared = (registry.options_of(entry) for registry, entry in chosen_entries(cfg)[section])
    return next((options[name].default for options in declared if name in options), "")


def settled(cfg: Config, is_valid: Callable[[str, str], bool]) -> tuple[Config, list[str]]:
    """The configuration with options of the declared types, without those at their default; and problems.

    Args:
        is_valid: whether a section's key has the value that was given; the options of a replaced one are unknown.
    """
    problems: list[str] = []
    sections: dict[str, Any] = {}
    for section, registries in SECTIONS.items():
        values = getattr(cfg, section).options
        if not all(is_valid(section, key) for _, key in registries):
            continue
        if values and not (section == "model" and cfg.model.target is not None):
            options, wrong = _settled_section(section, values, chosen_entries(cfg)[section])
            sections[section] = replace(getattr(cfg, section), options=options)
            problems += wrong
    return (replace(cfg, **sections) if sections else cfg), problems


def _settled_section(
    section: str, values: Options, entries: list[tuple[Registry[Any], str]]
) -> tuple[Options, list[str]]:
    problems: list[str] = []
    options: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{section}.options.{name}"
        owners = [(registry, entry) for registry, entry in entries if name in registry.options_of(entry)]
        if not owners:
            if (problem := _foreign_option(section, name, value, entries)) is not None:
                problems.append(problem)
        elif len(owners) > 1:
            listed = " and ".join(f"{registry.kind} {entry!r}" for registry, entry in owners)
            problems.append(f"{key} is an option of {listed}; rename it in one of them")
        else:
            [(registry, entry)] = owners
            option = registry.options_of(entry)[name]
            try:
                if (checked := option.check(value)) != option.default:
                    options[name] = checked
            except ValueError as error:
                problems.append(f"{key}={spell(value)}: {error}; e.g. {shell_word(key, option.default)}")
    if not problems:
        for registry, entry in entries:
            try:
                if registry.options_of(entry):
                    registry.entry_with(entry, options)
            except UserError as error:
                words = " ".join(shell_word(f"{section}.options.{key}", value) for key, value in options.items())
                problems.append(f"{words}: {error}")
    return Options(options), problems


def _foreign_option(section: str, name: str, value: Any, entries: list[tuple[Registry[Any], str]]) -> str | None:
    """What is wrong with an option that no chosen entry declares; None for the default of an entry that declares it."""
    key = f"{section}.options.{name}"
    owners = {owner: option.default for place, owner, option in _declared() if (place, option.name) == (section, name)}
    if owners:
        if value in owners.values():
            return None
        owner, default = next(iter(owners.items()))
        return f"{key}={spell(value)} belongs to {owner}; with others leave it at {spell(default)}, or leave it out"
    declared = [option for registry, entry in entries for option in registry.options_of(entry)]
    if declared:
        listed = f"there are {', '.join(f'{section}.options.{option}' for option in declared)}"
        return f"unknown key '{key}'; {did_you_mean(name, declared, listed, prefix=f'{section}.options.')}"
    listed = " and ".join(f"{registry.kind} {entry!r}" for registry, entry in entries if entry in registry)
    return f"unknown key '{key}'; {listed} declare none: options are keyword-only arguments of a function in a plugin"
