"""A run's configuration, and Hydra's node of it, as nested builtins: edited and resolved as Hydra and OmegaConf would.

Whatever these functions do not know raises `Unusual`: Hydra has to compose that run.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from mlpexp.config import yaml_text
from mlpexp.config.overrides import Override, RunSpec

Plain = dict[str, Any]

KEY = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
# ${key}; ${mlpexp.function:${key}}, whose result depends on its argument alone; ${oc.env:NAME}
REFERENCE = re.compile(
    rf"\$\{{(?:(?P<function>mlpexp\.\w+):\$\{{(?P<argument>{KEY.pattern})\}}"
    rf"|(?P<key>{KEY.pattern})|oc\.env:(?P<env>\w+(?:,[\w./-]+)?))\}}",
    re.ASCII,
)
_SCALARS = (bool, int, float, type(None))
_LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"


class Unusual(Exception):
    """Hydra has to compose this run."""


class PlainConfig:
    """The configuration that one set of files makes, before a run's values are set.

    Attributes:
        plain: nested builtins without Hydra's node, not resolved. Nodes with declared types, whose values would have
            to be converted, stay what they are; see `references`.
        sets_environment: the job sees other variables than the name of its directory does.
    """

    def __init__(self, plain: Plain, *, sets_environment: bool) -> None:
        self.plain, self._sets_environment = plain, sets_environment
        self._yaml = {key: yaml_text.block({key: value}) for key, value in plain.items()}
        self._references = {key: list(references(value, (key,))) for key, value in plain.items()}
        self._results: dict[tuple[str, str], Any] = {}

    def is_own(self, key: str, value: Any) -> bool:
        """Whether a run has left this section as the files have it."""
        return key in self.plain and self.plain[key] is value

    def text(self, plain: Plain) -> str:
        """The content of config.yaml for a run's values."""
        return "".join(
            self._yaml[key] if self.is_own(key, value) else yaml_text.block({key: value})
            for key, value in plain.items()
        )

    def resolved(self, plain: Plain) -> tuple[Plain, set[str]]:
        """A run's configuration with its interpolations replaced.

        Returns:
            It, and the keys at the top level that hold an interpolation or to which one refers.
        """
        paths: list[tuple[str, ...]] = []
        for key, value in plain.items():
            paths += self._references[key] if self.is_own(key, value) else references(value, (key,))
        config = dict(plain)
        copied: set[tuple[str, ...]] = set()
        read = set[str]()
        for path in paths:
            text = _value_at(plain, path)
            read |= {path[0], *keys_read(text)}
            _put(config, path, self._value(_match_reference(text), plain), copied)
        return config, read

    def inserted(self, text: str, plain: Plain) -> Any:
        """`text` with the values of its references; a text that is one reference has that value's type."""
        if "${" not in text:
            return text
        if match := REFERENCE.fullmatch(text):
            return self._value(match, plain)
        filled = REFERENCE.sub(lambda match: str(self._value(match, plain)), text)
        if "${" in filled or "\\" in text:
            raise Unusual
        return filled

    def _value(self, match: re.Match[str], plain: Plain) -> Any:
        if match["env"]:
            if self._sets_environment:
                raise Unusual
            return self._result("oc.env", match["env"], lambda call: f"${{{call}:{match['env']}}}", None)
        value = _value_at(plain, tuple((match["argument"] or match["key"]).split(".")))
        if not _is_literal(value):
            raise Unusual
        if match["function"] is None:
            return value
        # keyed by the value's repr, because 1, 1.0 and True are equal
        return self._result(match["function"], repr(value), lambda call: f"${{{call}:${{argument}}}}", value)

    def _result(self, function: str, key: str, interpolation: Callable[[str], str], argument: Any) -> Any:
        """OmegaConf's result of an interpolation that calls a function; each is computed once."""
        if (function, key) not in self._results:
            node = OmegaConf.create({"argument": argument, "result": interpolation(function)})
            self._results[function, key] = node.result
        return self._results[function, key]


class HydraNode:
    """Hydra's node of a configuration, which differs from run to run in five leaves only.

    Attributes:
        sweep_dir, subdir, output_subdir: not resolved.
        log_name, env_set, needs_run_job: see `HydraRun`.
    """

    _LEAVES = ("overrides.task", "job.override_dirname", "job.id", "job.num", "runtime.output_dir")

    def __init__(self, plain: Plain) -> None:
        node = plain["hydra"]
        self.sweep_dir, self.subdir = node["sweep"]["dir"], node["sweep"]["subdir"]
        self.output_subdir = node["output_subdir"]
        self.env_set = node["job"]["env_set"]
        self._rules = node["job"]["config"]["override_dirname"]
        self.log_name, is_usual = log_file(node["job_logging"], node["job"]["name"])
        self.needs_run_job = node["job"]["chdir"] is True or not is_usual
        if "${" in str([node["job"]["chdir"], self.env_set, self._rules, node["job"]["name"]]):
            raise Unusual
        marks = {leaf: f"__mlpexp_{number}__" for number, leaf in enumerate(self._LEAVES)}
        for leaf, mark in marks.items():
            group, name = leaf.split(".")
            node[group][name] = mark
        self._leaf_of = {mark: leaf for leaf, mark in marks.items()}
        self._pieces = re.split(f"({'|'.join(self._leaf_of)})", yaml_text.block(plain))

    def text(self, spec: RunSpec, output_dir: str) -> str:
        """The content of hydra.yaml."""
        values = dict(
            zip(
                self._LEAVES,
                (spec.texts, self.dirname(spec), str(spec.number), spec.number, output_dir),
                strict=True,
            )
        )
        return "".join(
            yaml_text.inline(values[self._leaf_of[piece]]) if piece in self._leaf_of else piece
            for piece in self._pieces
        )

    def dirname(self, spec: RunSpec) -> str:
        """`hydra.job.override_dirname`."""
        texts = sorted(override.text for override in spec.overrides if override.key not in self._rules["exclude_keys"])
        return str(self._rules["item_sep"].join(texts).replace("=", self._rules["kv_sep"]))


def apply(override: Override, plain: Plain, copied: set[tuple[str, ...]]) -> None:
    """Set, add or delete the value of an override, as Hydra does."""
    *above, name = path = tuple(override.key.split("."))
    parent: Any = plain
    for key in above:
        parent = parent.get(key, {}) if isinstance(parent, dict) else None
    if not isinstance(parent, dict):
        raise Unusual
    if override.value_text is None and override.kind != "delete":
        raise Unusual
    exists = name in parent
    before, value = parent.get(name), override.value
    if isinstance(before, dict) or (isinstance(before, str) and override.kind != "set" and "${" in before):
        raise Unusual
    if override.kind == "delete":
        if before is None or value not in (None, before) or type(value) not in (type(None), type(before)):
            raise Unusual
        _put(plain, path, None, copied, delete=True)
        return
    free = above == ["model"] or (len(above) == 2 and above[1] == "options")  # these nodes take further keys
    if (override.kind == "set" and not exists and not free) or (override.kind == "add" and before is not None):
        raise Unusual
    if not _is_value(value) or (exists and isinstance(value, dict)):
        raise Unusual
    _put(plain, path, value, copied)


def _put(plain: Plain, path: Sequence[str], value: Any, copied: set[tuple[str, ...]], *, delete: bool = False) -> None:
    """Set or delete one value; mappings on the way are copied, once each, because other runs share them."""
    *above, name = path
    node = plain
    for depth, key in enumerate(above, 1):
        if (place := tuple(above[:depth])) not in copied:
            node[key] = dict(node.get(key, {}))
            copied.add(place)
        node = node[key]
    if delete:
        del node[name]
    else:
        node[name] = value


def references(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The paths of all values that are interpolations."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from references(item, (*path, key))
    elif isinstance(value, str):
        if "${" in value:
            _match_reference(value)
            yield path
    elif OmegaConf.is_config(value) or (isinstance(value, list) and "${" in str(value)):
        raise Unusual


def keys_read(text: Any) -> set[str]:
    """The keys at the top level of a configuration to which a text refers."""
    matches = REFERENCE.finditer(text) if isinstance(text, str) else ()
    return {(match["argument"] or match["key"]).partition(".")[0] for match in matches if not match["env"]}


def _match_reference(text: str) -> re.Match[str]:
    if match := REFERENCE.fullmatch(text):
        return match
    raise Unusual


def _is_literal(value: Any) -> bool:
    """Whether OmegaConf takes it as it is."""
    return isinstance(value, _SCALARS) or (isinstance(value, str) and "${" not in value and value != "???")


def _is_value(value: Any) -> bool:
    """Whether it can be set without OmegaConf: literals, lists and mappings of them, one reference."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and key.isidentifier() and _is_value(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_literal, value))
    return _is_literal(value) or (isinstance(value, str) and REFERENCE.fullmatch(value) is not None)


def _value_at(plain: Plain, path: Sequence[str]) -> Any:
    node: Any = plain
    for key in path:
        if not isinstance(node, dict) or key not in node:
            raise Unusual
        node = node[key]
    return node


def absolute_directory(sweep_dir: str, subdir: str) -> str:
    # the calls of run_job: pathlib would not remove `..`; one object for all tables of a sweep that have it
    return sys.intern(os.path.abspath(os.path.join(sweep_dir, subdir)))  # noqa: PTH100, PTH118


def log_file(job_logging: Any, job_name: str) -> tuple[str | None, bool]:
    """The log file in a job's directory, and whether that is the only file that the job's logging opens."""
    handlers = (job_logging or {}).get("handlers") or {}
    files = [handler for handler in handlers.values() if handler.get("class") != "logging.StreamHandler"]
    if not files:
        return None, True
    if len(files) == 1 and (files[0].get("class"), files[0].get("filename")) == ("logging.FileHandler", _LOG_FILE):
        return f"{job_name}.log", True
    return None, False
