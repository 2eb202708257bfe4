"""All configurations of a sweep, as Hydra's own launcher composes and writes them, at a hundredth of the cost.

Hydra splits a job's overrides into those that choose files and those that set values. Each choice of files is
composed once, by Hydra; what a value does beyond taking a leaf's place is done once, by Hydra's own function; the
rest happens on plain dicts and lines of YAML. A job in which anything is unusual goes step by step the way of
Hydra's `run_job`, and one that raises is handed to Hydra itself, which has the last word.
"""

import copy
import os
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, ValueType
from hydra.core.utils import env_override
from hydra.types import RunMode
from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf, open_dict, read_write

from mlpexp.store import run_names
from mlpexp.sweep.yaml_documents import Document, dump_strings

# two interpolations of Hydra's node that are known here, and so need not be resolved for every job
_RUN_NAME = "${mlpexp.run_name:${hydra.overrides.task}}"
_LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"

# where the hydra.yaml of one job differs from that of the next
_TASK = "hydra.overrides.task"
_DIRNAME, _ID, _NUM = "hydra.job.override_dirname", "hydra.job.id", "hydra.job.num"
_OUTPUT_DIR = "hydra.runtime.output_dir"

_KEY = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
# ${key}; ${mlpexp.function:${key}}, where the functions of app.py depend on nothing but their argument; ${oc.env:NAME}
_REFERENCE = re.compile(
    rf"\$\{{(?:(?P<function>mlpexp\.\w+):\$\{{(?P<argument>{_KEY.pattern})\}}"
    rf"|(?P<key>{_KEY.pattern})|(?P<env>oc\.env:\w+(?:,[\w./-]+)?))\}}",
    re.ASCII,
)
_INTEGER = r"-?(?:0|[1-9]\d*)"
_NUMBER = re.compile(rf"({_KEY.pattern})=(?:({_INTEGER})(\.\d+)?|\[({_INTEGER}(?:,{_INTEGER})*)\])", re.ASCII)
_CACHED_LINES, _CACHED_BASES = 8192, 256


@dataclass(slots=True, kw_only=True)
class Composed:
    """One job's configuration, texts and place: a few KiB, of which much is shared with other jobs."""

    number: int
    arguments: tuple[str, ...]
    """the job's overrides as the sweeper gave them"""
    overrides: tuple[str, ...]
    """those that are not Hydra's own: `hydra.overrides.task`"""
    config: dict[str, Any]
    """resolved, without Hydra's node; not to be changed, parts belong to other jobs too"""
    config_yaml: str
    hydra_pieces: list[str]
    output_dir: str
    """absolute"""
    output_subdir: str | None
    """where below output_dir the three YAML files go; None: they are not wanted"""
    log_name: str | None
    """the log file in output_dir that the job's logging opens, if it does"""
    env_set: dict[str, str]
    needs_ordinary_way: bool
    """only Hydra's own run_job can do what this job asks for, e.g. change the directory"""

    @property
    def hydra_yaml(self) -> str:
        return "".join(self.hydra_pieces)

    @property
    def overrides_yaml(self) -> str:
        return dump_strings(self.overrides)

    def forget_texts(self) -> None:
        """Once written they are only in the way: ten thousand jobs should need little more room than a thousand."""
        self.config, self.config_yaml, self.hydra_pieces = {}, "", []


class Composer:
    """Composes the jobs of one sweep.

    Args:
        loader: Hydra's own.
        master: the sweep's configuration, as Hydra gives it to a launcher.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self.loader = loader
        self.master = master
        self._hydra_overrides: list[str] = OmegaConf.to_container(master.hydra.overrides.hydra)  # type: ignore[assignment]
        self._parser = OverridesParser.create()
        self._lines: dict[str, _Line] = {}
        self._groups: dict[tuple[str, bool], bool] = {}
        self._choices: dict[tuple[str, ...], bytes] = {}
        self._frames: dict[tuple[str, ...], _HydraNode] = {}
        self._bases: dict[tuple[tuple[str, ...], tuple[str, ...]], _Base | None] = {}

    def compose(self, arguments: Sequence[str], number: int) -> Composed:
        """The job number `number` of the sweep, from its overrides.

        Raises:
            HydraException: what Hydra raises for these overrides.
            OmegaConfBaseException: an interpolation in the job's configuration has no value.
        """
        try:
            return self._quickly(tuple(arguments), number)
        except Exception:  # whatever it was: Hydra has the last word
            return self._step_by_step(tuple(arguments), number)

    def config(self, arguments: Sequence[str], number: int) -> DictConfig:
        """The job's whole configuration, as Hydra's launcher hands it to `run_job`.

        Raises:
            HydraException: what Hydra raises for these overrides.
        """
        cfg = self.loaded(arguments)
        with open_dict(cfg):
            cfg.hydra.job.id = number
            cfg.hydra.job.num = number
        return cfg

    def loaded(self, arguments: Sequence[str]) -> DictConfig:
        """What Hydra's `load_sweep_config` returns.

        Raises:
            HydraException: what Hydra raises for these overrides.
        """
        try:
            return self._loaded(arguments)
        except Exception:
            return self.loader.load_sweep_config(self.master, list(arguments))

    def placed(self, arguments: Sequence[str], number: int) -> DictConfig:
        """`config` as the job itself finds it in `HydraConfig`: with its output directory."""
        cfg = self.config(arguments, number)
        with hydra_config(cfg):
            sweep_dir, subdir = (str(OmegaConf.select(cfg, f"hydra.sweep.{key}")) for key in ("dir", "subdir"))
        with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
            cfg.hydra.runtime.output_dir = _output_dir(sweep_dir, subdir)
        return cfg

    def _quickly(self, arguments: tuple[str, ...], number: int) -> Composed:
        groups, values = self._split(arguments)
        setting = [line for line in values if line.sets_leaf]
        others = [line for line in values if not line.sets_leaf]
        if any(_overlap(one.key, other.key) for one, other in product(setting, others)):
            raise _Unusual
        base = self._base(groups, others)
        frame = self._frames[tuple(line.text for line in groups)]
        edits = {line.key: line.value for line in values if line.is_plain}
        config = base.edited(edits)
        if frame.subdir == _RUN_NAME:
            subdir = run_names.run_name([base.filled(text, config) for text in arguments])
        else:
            subdir = str(base.filled(_numbered(frame.subdir, number), config))
        output_dir = _output_dir(str(base.filled(_numbered(frame.sweep_dir, number), config)), subdir)
        return Composed(
            number=number,
            arguments=arguments,
            overrides=arguments,
            config=config,
            config_yaml="".join(base.document.pieces(edits)),
            hydra_pieces=frame.pieces(self._each(arguments), number, output_dir),
            output_dir=output_dir,
            output_subdir=base.filled(frame.output_subdir, config),
            log_name=frame.log_name,
            env_set=frame.env_set,
            needs_ordinary_way=frame.needs_ordinary_way,
        )

    def _step_by_step(self, arguments: tuple[str, ...], number: int) -> Composed:
        """What `run_job` does to the configuration before it runs the job."""
        cfg = self.placed(arguments, number)
        with hydra_config(cfg):
            env_set = {key: str(value) for key, value in cfg.hydra.job.env_set.items()}
            task = without_hydra(cfg)
            with env_override(env_set):
                config = OmegaConf.to_container(task, resolve=True)
            subdir = cfg.hydra.output_subdir
            log_name, is_usual = _log_file(OmegaConf.to_container(cfg.hydra.job_logging), cfg.hydra.job.name)
            return Composed(
                number=number,
                arguments=arguments,
                overrides=tuple(OmegaConf.to_container(cfg.hydra.overrides.task)),  # type: ignore[arg-type]
                config=config,  # type: ignore[arg-type]
                config_yaml=OmegaConf.to_yaml(task),
                hydra_pieces=[OmegaConf.to_yaml(HydraConfig.instance().cfg)],
                output_dir=cfg.hydra.runtime.output_dir,
                output_subdir=None if subdir is None else str(subdir),
                log_name=log_name,
                env_set=env_set,
                needs_ordinary_way=bool(cfg.hydra.job.chdir) or not is_usual,
            )

    def _loaded(self, arguments: Sequence[str]) -> DictConfig:
        groups, values = self._split(arguments)
        cfg = self._chosen(groups)
        ConfigLoaderImpl._apply_overrides_to_config([line.override for line in values], cfg)
        cfg.hydra.overrides.task = list(arguments)
        rules = OmegaConf.to_container(cfg.hydra.job.config.override_dirname, resolve=True)
        cfg.hydra.job.override_dirname = _dirname(self._each(arguments), rules)
        OmegaConf.copy_cache(from_config=self.master, to_config=cfg)
        return cfg

    def _chosen(self, groups: Sequence["_Line"]) -> DictConfig:
        """A fresh configuration with these choices of files and no value set.

        Pickled, because that shares nothing between jobs (as Hydra's caching repository would) and is cheap.
        """
        key = tuple(line.text for line in groups)
        if key not in self._choices:
            self._choices[key] = pickle.dumps(self.loader.load_sweep_config(self.master, list(key)))
        return pickle.loads(self._choices[key])

    def _base(self, groups: Sequence["_Line"], others: Sequence["_Line"]) -> "_Base":
        choice = tuple(line.text for line in groups)
        key = (choice, tuple(line.shape for line in others))
        if key not in self._bases:
            if len(self._bases) >= _CACHED_BASES:
                self._bases.clear()
            self._bases[key] = None  # until it has proved usual
            cfg = self._chosen(groups)
            if choice not in self._frames:
                self._frames[choice] = _HydraNode(cfg)
            if others:
                if self._base(groups, ()).references or any(
                    _overlap(one.key, other.key) for i, one in enumerate(others) for other in others[:i]
                ):
                    raise _Unusual  # then an override could see the value of an interpolation
                ConfigLoaderImpl._apply_overrides_to_config([line.override for line in others], cfg)
            self._bases[key] = _Base(cfg)
        base = self._bases[key]
        if base is None:
            raise _Unusual
        return base

    def _split(self, arguments: Sequence[str]) -> tuple[list["_Line"], list["_Line"]]:
        """The overrides that choose files, and those that set values."""
        lines = self._each(arguments)
        if any(line.key.startswith("hydra") or line.override.is_sweep_override() for line in lines):
            raise _Unusual
        if any(line.kind not in self._groups for line in lines):
            defaults = self.loader.compute_defaults_list(
                self.master.hydra.job.config_name,
                [*self._hydra_overrides, *arguments],
                RunMode.RUN,
            )
            values = {override.input_line for override in defaults.config_overrides}
            self._groups |= {line.kind: line.text not in values for line in lines}
        return (
            [line for line in lines if self._groups[line.kind]],
            [line for line in lines if not self._groups[line.kind]],
        )

    def _each(self, arguments: Sequence[str]) -> list["_Line"]:
        if len(self._lines) > _CACHED_LINES:
            self._lines.clear()
        return [self._lines.get(text) or self._parsed(text) for text in arguments]

    def _parsed(self, text: str) -> "_Line":
        override = _read_number(text) or self._parser.parse_overrides([text])[0]
        line = self._lines[text] = _Line(override)
        return line


@contextmanager
def hydra_config(cfg: DictConfig) -> Iterator[None]:
    """While it lasts, `cfg` is what `${hydra:…}` and `HydraConfig` speak of."""
    singleton = HydraConfig.instance()
    before = singleton.cfg
    try:
        singleton.set_config(cfg)
        yield
    finally:
        singleton.cfg = before


def without_hydra(cfg: DictConfig) -> DictConfig:
    """A copy, as Hydra hands it to the job itself."""
    task = copy.deepcopy(cfg)
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task


class _Unusual(Exception):
    """Not for the quick way."""


class _Line:
    """One parsed override.

    Attributes:
        kind: what decides whether it chooses files.
        is_plain: its value is a scalar, a list of scalars, or a reference to another leaf.
        sets_leaf: it gives such a value to a leaf that must exist.
        shape: overrides of one shape do the same to a configuration, up to a plain value.
    """

    __slots__ = ("is_plain", "key", "kind", "override", "sets_leaf", "shape", "text", "value")

    def __init__(self, override: Override) -> None:
        assert override.input_line is not None
        self.override = override
        self.text = self.shape = override.input_line
        self.key = override.key_or_group
        self.value = override.value()
        self.kind = (self.key, isinstance(self.value, dict))
        is_list = isinstance(self.value, list)
        self.is_plain = (
            not override.is_delete()
            and override.package is None
            and _KEY.fullmatch(self.key) is not None
            and (
                all(map(_is_scalar, self.value))
                if isinstance(self.value, list)
                else _is_scalar(self.value) or _target(self.value) is not None
            )
        )
        self.sets_leaf = self.is_plain and override.type == OverrideType.CHANGE
        if self.is_plain and not self.sets_leaf:
            self.shape = f"{override.get_key_element()}={'[]' if is_list else ''}"


class _Base:
    """A choice of files and what else is the same in many jobs, without Hydra's node; one leaf or another may differ.

    Attributes:
        references: leaf -> the leaf whose value it takes.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self._sets_environment = bool(cfg.hydra.job.env_set)
        with open_dict(cfg):
            del cfg["hydra"]
        plain = OmegaConf.to_container(cfg)
        assert isinstance(plain, dict)
        self.plain: dict[str, Any] = plain  # type: ignore[assignment]
        self.document = Document(self.plain)
        self.references: dict[str, _Target] = {}
        for name, path in self.document.leaves.items():
            value = _at(self.plain, path)
            if (target := _target(value)) is not None:
                self.references[name] = target
        text = OmegaConf.to_yaml(cfg)
        nested = sum(1 if function in (None, "oc.env") else 2 for function, _ in self.references.values())
        if self.document.text() != text or text.count("${") != nested:
            raise _Unusual
        self._called: dict[tuple[str, str], Any] = {}
        self._free = {name for name, path in self.document.leaves.items() if _is_free(cfg, path)}

    def edited(self, edits: Mapping[str, Any]) -> dict[str, Any]:
        """The resolved configuration with these leaves replaced."""
        if not edits.keys() <= self._free:
            raise _Unusual  # an unknown key, a whole group, a typed value
        config = dict(self.plain)
        own: set[tuple[str, ...]] = set()

        def put(name: str, value: Any) -> None:
            *above, last = self.document.leaves[name]
            node = config
            for depth, key in enumerate(above, 1):
                if (place := tuple(above[:depth])) not in own:
                    node[key] = dict(node[key])
                    own.add(place)
                node = node[key]
            node[last] = value

        for name, value in edits.items():
            put(name, value)
        references = self.references | {name: _target(value) for name, value in edits.items()}
        resolved = {name: self._value(config, target) for name, target in references.items() if target}
        for name, value in resolved.items():
            put(name, value)
        return config

    def filled(self, text: Any, config: dict[str, Any]) -> Any:
        """`text` with its references resolved; what one reference is all of keeps its type."""
        if not isinstance(text, str) or "${" not in text:
            return text
        if (target := _target(text)) is not None:
            return self._value(config, target)
        filled = _REFERENCE.sub(lambda match: str(self._value(config, _parts(match))), text)
        if "${" in filled or "\\" in text:
            raise _Unusual
        return filled

    def _value(self, config: dict[str, Any], target: "_Target") -> Any:
        function, name = target
        if function == "oc.env":
            return self._environment(name)
        if name not in self._free:
            raise _Unusual
        value = _at(config, self.document.leaves[name])
        if not _is_scalar(value):
            raise _Unusual  # a list, or in its turn a reference
        if function is None:
            return value
        call = function, repr(value)  # by its repr: 1, 1.0 and True are equal
        if call not in self._called:
            node = OmegaConf.create({"argument": value, "result": f"${{{function}:${{argument}}}}"})
            self._called[call] = node.result
        return self._called[call]

    def _environment(self, argument: str) -> Any:
        if self._sets_environment:
            raise _Unusual  # a job may then see other variables than its directory's name does
        call = "oc.env", argument
        if call not in self._called:
            self._called[call] = OmegaConf.create({"result": f"${{oc.env:{argument}}}"}).result
        return self._called[call]


class _HydraNode:
    """Hydra's own node of a configuration, which differs from job to job in five leaves only.

    Attributes:
        sweep_dir, subdir, output_subdir: not resolved.
        log_name, env_set, needs_ordinary_way: see `Composed`.
    """

    def __init__(self, cfg: DictConfig) -> None:
        masked = OmegaConf.masked_copy(cfg, "hydra")
        plain: Any = OmegaConf.to_container(masked, enum_to_str=True)
        document = Document(plain)
        if document.text() != OmegaConf.to_yaml(masked):
            raise _Unusual
        self._document = document.joined((_TASK, _DIRNAME, _ID, _NUM, _OUTPUT_DIR))
        node = plain["hydra"]
        self.sweep_dir, self.subdir = node["sweep"]["dir"], node["sweep"]["subdir"]
        self.output_subdir = node["output_subdir"]
        self._dirname_rules = node["job"]["config"]["override_dirname"]
        self.env_set = node["job"]["env_set"]
        self.log_name, is_usual = _log_file(node["job_logging"], node["job"]["name"])
        chdir = node["job"]["chdir"]
        self.needs_ordinary_way = chdir is True or not is_usual
        if "${" in str([chdir, self.env_set, self._dirname_rules, node["job"]["name"]]):
            raise _Unusual

    def pieces(self, lines: Sequence[_Line], number: int, output_dir: str) -> list[str]:
        return self._document.pieces(
            {
                _TASK: [line.text for line in lines],
                _DIRNAME: _dirname(lines, self._dirname_rules),
                _ID: str(number),
                _NUM: number,
                _OUTPUT_DIR: output_dir,
            }
        )


def _output_dir(sweep_dir: str, subdir: str) -> str:
    # run_job's own calls: pathlib would not take `..` out
    return os.path.abspath(os.path.join(sweep_dir, subdir))  # noqa: PTH100, PTH118


def _dirname(lines: Sequence[_Line], rules: Any) -> str:
    return get_overrides_dirname(overrides=[line.override for line in lines], **rules)


def _log_file(job_logging: Any, job_name: str) -> tuple[str | None, bool]:
    """The log file in a job's directory, and whether that is all the job's logging does with files."""
    handlers = (job_logging or {}).get("handlers") or {}
    files = [handler for handler in handlers.values() if handler.get("class") != "logging.StreamHandler"]
    if not files:
        return None, True
    usual = len(files) == 1 and files[0].get("class") == "logging.FileHandler"
    if usual and files[0].get("filename") == _LOG_FILE:
        return f"{job_name}.log", True
    return None, False


def _read_number(text: str) -> Override | None:
    """`key=number` or `key=[integer,integer]` as Hydra's parser reads it, which takes a hundred times as long."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    key, whole, fraction, items = match.groups()
    value: Any = float(whole + fraction) if fraction else int(whole) if whole else [int(i) for i in items.split(",")]
    return Override(OverrideType.CHANGE, key, ValueType.ELEMENT, value, input_line=text)


def _is_scalar(value: Any) -> bool:
    """Whether it means nothing but itself to OmegaConf."""
    if isinstance(value, str):
        return "${" not in value and value != "???"
    return value is None or isinstance(value, bool | int | float)


_Target = tuple[str | None, str]  # a function, and the leaf that it is given; for oc.env, its argument


def _target(value: Any) -> _Target | None:
    match = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return _parts(match) if match else None


def _parts(match: re.Match[str]) -> _Target:
    if match["env"]:
        return "oc.env", match["env"].removeprefix("oc.env:")
    return match["function"], match["argument"] or match["key"]


def _numbered(text: Any, number: int) -> Any:
    """`text` of Hydra's node with the job's number in it."""
    if isinstance(text, str):
        return text.replace("${hydra.job.num}", str(number)).replace("${hydra:job.num}", str(number))
    return text


def _is_free(cfg: DictConfig, path: tuple[str, ...]) -> bool:
    """Whether OmegaConf would take any value in this place as it is."""
    node: Any = cfg
    for key in path:
        node = node._get_node(key)
    if isinstance(node, ListConfig):
        return node._metadata.element_type is Any and not node._is_none() and not node._is_interpolation()
    return type(node) is AnyNode


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _at(plain: Mapping[str, Any], path: Sequence[str]) -> Any:
    for key in path:
        plain = plain[key]
    return plain
