"""The manifest of a sweep, `sweep.json`: its study, and every run that was ever planned in it.

A study may grow: a key that is swept may get new values, a key may come to be swept. What may not change is the
value of a key that is the same in all runs, before and now: that would be another study in the same place.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mlpexp.config import run_names
from mlpexp.config.overrides import spell
from mlpexp.config.schema import Config
from mlpexp.data.data_sets import DATA_SETS
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_files import NotRegularFile
from mlpexp.store import atomic_files
from mlpexp.store.file_names import MANIFEST
from mlpexp.store.identity import NAMES, SCHEMA_VERSION, all_but_the_seed, entry, leaves, neutral_defaults
from mlpexp.store.run_directory import is_relative, seal, unsealed

MAX_MANIFEST = 2**30  # bytes
MAX_COMPARED = 4096  # configurations that are recognised when they come again, but for the seed
DIGEST = "data digest"
PLUGINS = "plugins"
# repetitions: other values of these never make another study
REPEATED = ("seed", "data.seed", "data.fold")
# other values of these are further points of the same grid, if they are in the names of the runs
GROWING = ("model.", "optimizer.")


@dataclass
class Manifest:
    """The content of `sweep.json`.

    Attributes:
        constants: keys that had one value in all runs, by their dotted names.
        varied: keys that had several.
        runs: the directory of each run, relative to the sweep's, by its identity.
        shorter: the numbers of epochs that its runs had before they were trained further.
        earlier: the directory of each of these runs as it was before, by its identity then.
    """

    constants: dict[str, Any] = field(default_factory=dict)
    varied: list[str] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)
    shorter: list[int] = field(default_factory=list)
    earlier: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def read(directory: Path) -> Manifest | None:
    """The manifest of a sweep's directory; None where there is none.

    Raises:
        UserError: it is damaged, or of a newer mlpexp, or the directory belongs to something else.
    """
    path = directory / MANIFEST
    try:
        content = unsealed(safe_files.read_bytes(path, MAX_MANIFEST), path)
        manifest = TypeAdapter(Manifest).validate_python(content)
        if not all(map(is_relative, manifest.runs.values())):
            raise ValueError("the name of a run leads out of the directory")
    except FileNotFoundError:
        return None
    except (ValueError, NotRegularFile, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} is damaged; move it away, and finished runs are found again ({reason})") from error
    return manifest


def study(runs: Iterable[tuple[Config, str]]) -> Manifest:
    """The study of these runs (configuration and digest of the data), without their directories."""
    iterator = iter(runs)
    first, digest = next(iterator)
    entries = {name: entry(first, name) for name in NAMES}
    constants = {key: value for part in entries.values() for key, value in leaves(part.content)}
    # generated data is determined by its configuration
    if not DATA_SETS[first.data.name].generated:
        constants[DIGEST] = digest
    varied: set[str] = set()
    compared: dict[int, Any] = {id(shared := all_but_the_seed(first)): shared}  # by id; kept, so that no other gets it
    for cfg, other_digest in iterator:
        if cfg.seed != first.seed:
            varied.add("seed")
        if id(shared := all_but_the_seed(cfg)) in compared:
            continue
        if len(compared) < MAX_COMPARED:
            compared[id(shared)] = shared
        for name in NAMES:
            if (new := entry(cfg, name)) is not entries[name]:
                varied |= _differing(dict(leaves(entries[name].content)), dict(leaves(new.content)))
        generated = DATA_SETS[cfg.data.name].generated
        if (None if generated else other_digest) != constants.get(DIGEST):
            varied.add(DIGEST)
    return Manifest(constants={k: v for k, v in constants.items() if k not in varied}, varied=sorted(varied))


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    common = new.keys() & old.keys()
    return (new.keys() ^ old.keys()) | {key for key in common if new[key] != old[key]}


def joined(
    old: Manifest | None, new: Manifest, directory: Path, *, names: Sequence[str] = (), refuse: bool = True
) -> Manifest:
    """Merge two manifests.

    Args:
        names: of the new runs. A key of the model or the optimizer may get a new value alone, e.g.
            `model.activation=relu` after `=tanh`, where it is in the name of every run, old and new.
        refuse: raise if they are different studies.

    Raises:
        UserError: they are different studies and this is to be refused; names the first key that differs.
    """
    if old is None:
        return new
    old_values, new_values = spelled_out(old), spelled_out(new)
    if refuse:
        named = [*old.runs.values(), *names] if old.runs else []
        for key, value in new_values.items():
            is_new_point = named and key.startswith(GROWING) and _is_named(key, named)
            if key in old_values and old_values[key] != value and key not in REPEATED and not is_new_point:
                raise UserError(f"{directory} holds another study: {_difference(key, old_values[key], value)}")
    common = {key: value for key, value in new_values.items() if old_values.get(key, value) == value}
    varied = (set(old.varied) | set(new.varied) | set(new_values)) - set(common)
    constants = {key: value for key, value in common.items() if key not in old.varied}
    varied |= set(common) - set(constants)
    return replace(old, constants=constants, varied=sorted(varied), runs=old.runs | new.runs)


def _difference(key: str, old: Any, new: Any) -> str:
    """How a study differs from the earlier one, and what to do, as the end of a message."""
    if key == DIGEST:
        return "the data's bytes are others than when it began; restore the file, or choose another name=…"
    if key == PLUGINS and old and new:
        changed = ", ".join(sorted({plugin.partition("@")[0] for plugin in {*old} ^ {*new}}))
        return (
            f"the plugins have changed since it began ({changed}), and so may the runs; choose another name=…, or "
            "restore them"
        )
    return f"{key} is {spell(old)} there and {spell(new)} here; choose another name=…"


def _is_named(key: str, names: Iterable[str]) -> bool:
    """Whether every name of a run has a value of this key, or a choice of its group."""
    shown = {f"{run_names.short(key)}=", f"{key.partition('.')[0]}="}
    return all(any(part.startswith(tuple(shown)) for part in name.split(",")) for name in names)


def spelled_out(study: Manifest) -> dict[str, Any]:
    """Its constants, with the defaults of the keys that a run's identity omits."""
    return {key: value for key, value in neutral_defaults().items() if key not in study.varied} | study.constants


def write(directory: Path, manifest: Manifest) -> None:
    content = vars(manifest) | {"sha256": seal(vars(manifest))}
    atomic_files.write(directory / MANIFEST, json.dumps(content, indent=1, sort_keys=True) + "\n", durable=True)
