"""The identity of a run: a SHA-256 of everything that determines its numbers.

It is taken over the resolved configuration, the digest of the data's bytes, and the schema version. A key that did not
exist when the first runs were made enters only where its value differs from its default, so that a new key with a
neutral default never changes the identity of an earlier run.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from operator import attrgetter
from typing import Any

from mlpexp.config.model_config import ModelConfig
from mlpexp.config.schema import REMOVED, WITHOUT_EFFECT, Config, plain
from mlpexp.config.training_config import LossConfig
from mlpexp.data.data_config import DataConfig
from mlpexp.data.data_sets import DATA_SETS
from mlpexp.nn.losses import DEFAULTS
from mlpexp.nn.metrics import recorded
from mlpexp.runtime import user_code
from mlpexp.runtime.object_cache import ByObject

SCHEMA_VERSION = 1

# keys of the first schema: always part of the identity; "" is the top level
FIRST: Mapping[str, frozenset[str]] = {
    "": frozenset({"seed", "monitor", "test_weights", "callbacks"}),
    "model": frozenset({"variant", "depth", "width", "activation", "init", "sigma_w", "sigma_b"}),
    "data": frozenset(
        {"name", "split", "val_fraction", "test_fraction", "seed", "folds", "fold", "label_noise"}
        | {"batch_size", "shuffle"}
    ),
    "optimizer": frozenset(
        {"name", "lr", "momentum", "nesterov", "weight_decay"}
        | {"schedule", "step_epochs", "step_factor", "warmup_epochs"}
    ),
    "early_stopping": frozenset({"patience", "min_delta"}),
    "trainer": frozenset({"max_epochs", "flags"}),
    "stack": frozenset(),
}
# groups that enter as a whole where this key of theirs is set
TOGETHER = {"halving": "rungs"}
# what cannot change a run's numbers
IRRELEVANT: Mapping[str, frozenset[str]] = {
    "": WITHOUT_EFFECT | {"diagnostics", "logger"},
    "data": frozenset({"path", "val_path", "test_path"}),  # the files' bytes are in the digest
    "stack": frozenset({"threads", "memory_mib", "save_every_s"}),
    "trainer": frozenset({"accelerator", "enable_progress_bar"}),
    "trainer.flags": frozenset({"devices", "num_nodes", "log_every_n_steps", "enable_model_summary", "profiler"}),
}
# keys whose values give an entry its meaning, where these are more than its own
MEANING = {"loss": ("loss", "data"), "metrics": ("metrics", "data", "monitor")}
NAMES = tuple(field.name for field in fields(Config) if field.name not in IRRELEVANT[""])
_OTHERS = tuple(name for name in NAMES if name not in ("seed", "callbacks"))
_NO_CALLBACKS: dict[str, Any] = {}  # one object for all runs without any
_NONE: frozenset[str] = frozenset()
_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str).encode
_DEFAULTS = plain(Config())
_DEFAULTS["stack"]["engine"] = "torch"  # the engine of all runs before there was a choice


def identity(cfg: Config, data_digest: str, **parts: Any) -> str:
    """The identity of a run of `cfg` on data with this digest: the SHA-256 of its content as canonical JSON.

    Args:
        parts: groups of keys in the place of those of `cfg`, such as `trainer`.
    """
    head, tail = all_but_the_seed(cfg, **parts)
    config = f'{head}"seed":{_json(cfg.seed)}{tail}'
    canonical = f'{{"config":{{{config}}},"data":{_json(data_digest)},"schema_version":{SCHEMA_VERSION}}}'
    return sys.intern(hashlib.sha256(canonical.encode()).hexdigest())  # several tables of a sweep have it


class Entry:
    """One key or group of a configuration, as far as it is in the identity; equal for values that mean the same.

    Args:
        value: of the key, then those of MEANING.

    Attributes:
        content: by its name; empty where it is not in the identity.
        text: the same as a member of a canonical JSON object.
    """

    def __init__(self, name: str, value: Any, *context: Any) -> None:
        part = plain(value)
        if name == "stack" and value.engine == "auto":  # not decided: a run that trains alone
            part["engine"] = "torch"
        if name == "model" and isinstance(rates := value.dropout, list) and len(set(rates)) <= 1:
            part["dropout"] = rates[0] if rates else 0.0  # equal rates may be given as a list, too
        self.content = relevant({name: part}, _DEFAULTS)
        if name in REMOVED:
            self.content[name] |= REMOVED[name]
        if name in _SPELLINGS:
            self.content = _SPELLINGS[name](self.content, value, *context)
        self.text = _json(self.content)[1:-1]


def entry(cfg: Config, name: str) -> Entry:
    """The entry of one of NAMES; runs that share the values share the entry."""
    return _entries[name](*(getattr(cfg, key) for key in MEANING.get(name, (name,))))


def all_but_the_seed(cfg: Config, **parts: Any) -> tuple[str, str]:
    """The canonical JSON of all entries before and after the seed; runs that share the values get the same object."""
    values = _values(cfg)
    if parts:
        values = tuple(parts.get(name, value) for name, value in zip(_OTHERS, values, strict=True))
    return _texts(cfg.callbacks or _NO_CALLBACKS, *values)


def _joined_texts(*values: Any) -> tuple[str, str]:
    by_name = dict(zip(("callbacks", *_OTHERS), values, strict=True))
    texts = {name: _entries[name](*(by_name[key] for key in MEANING.get(name, (name,)))).text for name in by_name}
    head = "".join([f"{texts[name]}," for name in sorted(texts) if name < "seed" and texts[name]])
    return head, "".join([f",{texts[name]}" for name in sorted(texts) if name > "seed" and texts[name]])


_values = attrgetter(*_OTHERS)
_texts = ByObject(_joined_texts)
Content = dict[str, Any]


def _model(content: Content, model: ModelConfig) -> Content:
    if model.target is not None:  # the class knows what they mean
        return content
    # equal widths may be given as a list or by the depth
    return {"model": content["model"] | {"depth": len(model.hidden_sizes), "width": model.hidden_sizes}}


def _data(content: Content, data: DataConfig) -> Content:
    part = dict(content["data"])
    if data.task == DATA_SETS[data.name].task:  # the default of the data set may be named
        del part["task"]
    if len(data.targets) == 1:
        part["target"] = data.targets[0]
    return {"data": part}


def _loss(content: Content, loss: LossConfig, data: DataConfig) -> Content:
    part = dict(content.get("loss", {}))
    if loss.name == DEFAULTS[data.learns]:  # the default of the task may be named
        del part["name"]
    return {"loss": part} if part else {}


def _metrics(_: Content, metrics: Sequence[str] | None, data: DataConfig, monitor: str) -> Content:
    monitored = monitor.removeprefix("val/")
    defaults = recorded(data.learns, [monitored])
    additional = [name for name in recorded(data.learns, [*(metrics or ()), monitored]) if name not in defaults]
    return {"metrics": additional} if additional else {}


def _plugins(_: Content, plugins: Sequence[str]) -> Content:
    names = sorted({user_code.without_place(plugin) for plugin in plugins})
    return {"plugins": names} if names else {}


_SPELLINGS: Mapping[str, Callable[..., Content]] = {
    "model": _model,
    "data": _data,
    "loss": _loss,
    "metrics": _metrics,
    "plugins": _plugins,
}
_entries = {name: ByObject(partial(Entry, name)) for name in NAMES}


def relevant(config: Mapping[str, Any], defaults: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """The part of a plain configuration that is in the identity, as nested mappings."""
    content: dict[str, Any] = {}
    first, irrelevant = FIRST.get(group, _NONE), IRRELEVANT.get(group, _NONE)
    for name, value in config.items():
        if name in irrelevant:
            continue
        path = f"{group}.{name}" if group else name
        default = defaults.get(name)
        if path in TOGETHER:
            if value[TOGETHER[path]] is not None:
                content[name] = value
        elif path in FIRST:
            content[name] = relevant(value, default or {}, path)
        elif name in first:
            left_out = IRRELEVANT.get(path, _NONE)
            content[name] = {key: item for key, item in value.items() if key not in left_out} if left_out else value
        elif value != default:
            content[name] = _difference(value, default)
    return content


def neutral_defaults() -> dict[str, Any]:
    """The dotted keys that an identity omits while they have their default, with that default."""
    return {
        path: value
        for path, value in leaves(_DEFAULTS)
        if not any(_is_listed(path, table) for table in (FIRST, IRRELEVANT))
    }


def _difference(value: Any, default: Any) -> Any:
    """The keys of `value` that differ from `default`; a value that is no mapping is returned as a whole."""
    if not isinstance(value, Mapping) or not isinstance(default, Mapping) or not default:
        return value
    return {name: _difference(item, default.get(name)) for name, item in value.items() if item != default.get(name)}


def _is_listed(path: str, table: Mapping[str, frozenset[str]]) -> bool:
    parts = path.split(".")
    return any(parts[i] in table.get(".".join(parts[:i]), _NONE) for i in range(len(parts)))


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings by their dotted keys."""
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
