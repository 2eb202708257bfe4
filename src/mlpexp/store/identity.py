"""The identity of a run: a SHA-256 of everything that determines its numbers.

It is taken over the resolved configuration, the digest of the data's bytes, and the schema version. A key that did not
exist when the first runs were made enters only where its value differs from its default, so that a new key with a
neutral default never changes the identity of an earlier run.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from mlpexp.config.schema import REMOVED, Config, plain
from mlpexp.data.data_sets import DATA_SETS
from mlpexp.nn.losses import DEFAULTS
from mlpexp.nn.metrics import recorded

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
    "": frozenset({"name", "resume", "threads", "tracking", "logger", "dry_run", "report", "record"}),
    "data": frozenset({"path", "val_path", "test_path"}),  # the files' bytes are in the digest
    "stack": frozenset({"threads", "memory_mib", "save_every_s"}),
    "trainer": frozenset({"accelerator", "enable_progress_bar"}),
    "trainer.flags": frozenset({"devices", "num_nodes", "log_every_n_steps", "enable_model_summary", "profiler"}),
}
_NONE: frozenset[str] = frozenset()
_DEFAULTS = plain(Config())
_DEFAULTS["stack"]["engine"] = "torch"  # the engine of all runs before there was a choice


def identity(cfg: Config, data_digest: str) -> str:
    """The identity of a run of `cfg` on data with this digest."""
    return hash_content(identity_content(cfg, data_digest))


def hash_content(content: Mapping[str, Any]) -> str:
    """The identity of the run with this `identity_content`."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def identity_content(cfg: Config, data_digest: str) -> dict[str, Any]:
    """What determines a run's numbers: its configuration, its data's bytes, the schema version."""
    config = plain(cfg)
    if cfg.stack.engine == "auto":  # not decided: a run that trains alone
        config["stack"]["engine"] = "torch"
    rates = config["model"]["dropout"]
    if isinstance(rates, list) and len(set(rates)) <= 1:  # equal rates may be given as a list, too
        config["model"]["dropout"] = rates[0] if rates else 0.0
    found = relevant(config, _DEFAULTS)
    for group, values in REMOVED.items():
        found[group] |= values
    return {"config": _canonical(found, cfg), "data": data_digest, "schema_version": SCHEMA_VERSION}


def _canonical(found: dict[str, Any], cfg: Config) -> dict[str, Any]:
    """The same for configurations that mean the same."""
    # equal widths may be given as a list or by the depth
    found["model"]["depth"] = len(cfg.model.hidden_sizes)
    found["model"]["width"] = cfg.model.hidden_sizes
    # what is the default of the task may be named
    if cfg.loss.name == DEFAULTS[cfg.data.learns]:
        del found["loss"]["name"]
        found = {key: value for key, value in found.items() if key != "loss" or value}
    if cfg.data.task == DATA_SETS[cfg.data.name].task:
        del found["data"]["task"]
    if len(cfg.data.targets) == 1:
        found["data"]["target"] = cfg.data.targets[0]
    usual = recorded(cfg.data.learns, [cfg.monitor.removeprefix("val/")])
    further = [name for name in cfg.metric_names if name not in usual]
    return {key: value for key, value in found.items() if key != "metrics"} | ({"metrics": further} if further else {})


def relevant(config: Mapping[str, Any], defaults: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """The part of a plain configuration that is in the identity, as nested mappings."""
    found: dict[str, Any] = {}
    first, irrelevant = FIRST.get(group, _NONE), IRRELEVANT.get(group, _NONE)
    for name, value in config.items():
        if name in irrelevant:
            continue
        path = f"{group}.{name}" if group else name
        default = defaults.get(name)
        if path in TOGETHER:
            if value[TOGETHER[path]] is not None:
                found[name] = value
        elif path in FIRST:
            found[name] = relevant(value, default or {}, path)
        elif name in first:
            found[name] = _without(value, IRRELEVANT[path]) if path in IRRELEVANT else value
        elif value != default:
            found[name] = _difference(value, default)
    return found


def neutral_defaults() -> dict[str, Any]:
    """Dotted keys that an identity leaves out where they have their default, with that default."""
    return {
        path: value
        for path, value in leaves(_DEFAULTS)
        if not any(_is_listed(path, table) for table in (FIRST, IRRELEVANT))
    }


def _difference(value: Any, default: Any) -> Any:
    """`value`, without those parts of a group of keys that are as in `default`."""
    if not isinstance(value, Mapping) or not isinstance(default, Mapping) or not default:
        return value
    return {name: _difference(item, default.get(name)) for name, item in value.items() if item != default.get(name)}


def _without(value: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name not in names}


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
