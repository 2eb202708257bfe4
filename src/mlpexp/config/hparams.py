"""The hyperparameters of a run that TensorBoard's HParams tab and tables show: a few of about eighty keys."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any

from mlpexp.config import schema, user_options
from mlpexp.config.overrides import by_key, spell
from mlpexp.config.schema import Config
from mlpexp.nn.optimizers import OPTIMIZERS

# in the HParams tab of every run; beside them whatever differs from the defaults
ALWAYS_SHOWN = (
    *("seed", "model.depth", "model.width", "model.activation", "model.init", "optimizer.name", "optimizer.lr"),
    *("data.name", "data.batch_size", "trainer.max_epochs"),
)
NEVER_SHOWN = (
    *sorted(schema.WITHOUT_EFFECT - {"record"}),
    *("stack.", "trainer.enable_progress_bar", "callbacks", "logger"),
)


def chosen(cfg: Config) -> dict[str, bool | int | float | str]:
    """The keys that are always shown, and all that differ from their defaults."""
    values: dict[str, bool | int | float | str] = {}
    for key, default, read in _readers():
        if cfg.model.target is not None and key.startswith("model."):
            continue
        value = schema.plain(read(cfg))
        if key == "model.depth":
            value = cfg.model.num_hidden
        if key in user_options.NODES:
            values |= {f"{key}.{name}": _shown(option_value) for name, option_value in value.items()}
        elif key in ALWAYS_SHOWN or (value != default and not key.startswith(NEVER_SHOWN)):
            values[key] = _shown(value)
    if cfg.model.target is not None:
        for name, value in {"_target_": cfg.model.target, **cfg.model.arguments}.items():
            values[f"model.{name}"] = _shown(value)
    return values


def swept(cfg: Config, keys: Sequence[str], overrides: Sequence[str]) -> dict[str, bool | int | float | str]:
    """The keys that a sweep varies; all others are the same in every row.

    Keys that a run does not give and that have no effect on it, such as `optimizer.momentum` with adam, are left out.

    Args:
        keys: those that differ between runs, e.g. `model.depth`, or `optimizer` where a group is swept.
        overrides: those of the run, for keys that are not in the schema, such as groups.
    """
    overrides_by_key = by_key(overrides)
    values: dict[str, bool | int | float | str] = {}
    readers = {key: read for key, _, read in _readers()}
    for key in keys:
        if key not in overrides_by_key and not _has_effect(cfg, key):
            continue
        value: Any = (
            readers[key](cfg)
            if key in readers
            else overrides_by_key[key].value_text or ""
            if key in overrides_by_key
            else _value_at(cfg, key) or ""
        )
        if key == "model.depth" and cfg.model.target is None:
            value = cfg.model.num_hidden
        elif key.rpartition(".")[0] in user_options.NODES:
            value = user_options.value_of(cfg, key)
        values[key] = _shown(value)
    return values


def with_values_of(config: Config | Mapping[str, Any], keys: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The overrides of a run, and after them those of `keys` that they lack, with the values that the run has.

    Keys that have no effect on it are left out: those of other optimizers, such as `optimizer.momentum` with adam. So
    are keys without a value. The value of a group such as `optimizer` is its name.

    Args:
        config: of the run, or the same as nested mappings.
    """
    given = by_key(overrides)
    lacking = {key: _value_at(config, key) for key in keys if key not in given and _has_effect(config, key)}
    return [*overrides, *(f"{key}={spell(value)}" for key, value in lacking.items() if value is not None)]


def _value_at(config: Any, key: str) -> Any:
    """The value of a key, the name of a group, or the number of hidden layers; None where there is none, or several."""
    value = config
    for name in key.split("."):
        value = _member(value, name)
    if key == "model.depth" and value is None and (width := _value_at(config, "model.width")) is not None:
        return len(width) if isinstance(width, list) else 1
    if not isinstance(value, bool | int | float | str | list | tuple):
        value = _member(value, "name")
    return value if isinstance(value, bool | int | float | str | list | tuple) else None


def _member(node: Any, name: str) -> Any:
    return node.get(name) if isinstance(node, Mapping) else getattr(node, name, None)


def _has_effect(config: Any, key: str) -> bool:
    section, _, name = key.partition(".")
    if section != "optimizer" or not any(name in optimizer.keys for optimizer in OPTIMIZERS.values()):
        return True
    chosen_optimizer = _value_at(config, "optimizer.name")
    return chosen_optimizer in OPTIMIZERS and name in OPTIMIZERS[chosen_optimizer].keys


def _shown(value: Any) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else spell(value)


@cache
def _readers() -> list[tuple[str, Any, Callable[[Config], Any]]]:
    return [(key, default, attrgetter(key)) for key, default, _ in schema.keys()]
