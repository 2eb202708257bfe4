"""The configuration of each run of a sweep: what Hydra composes, at a thousandth of the time.

Of a run's overrides some choose files (`optimizer=adam`) and some set values. Hydra composes each distinct set of
choices once; values are then set in nested builtins. Whatever is unusual in a run (a key that does not exist, an
interpolation other than `${key}`) makes Hydra compose that run, which also words the errors.
"""

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, SCMode, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mlpexp.config import run_names, yaml_text
from mlpexp.config.overrides import Override, RunSpec
from mlpexp.config.plain_config import (
    KEY,
    HydraNode,
    Plain,
    PlainConfig,
    Unusual,
    absolute_directory,
    apply,
    log_file,
)

# interpolations of conf/train.yaml that are known here, so that they need not be resolved for every run
_RUN_NAME = "${mlpexp.run_name:${hydra.overrides.task}}"
_FULL_RUN_NAME = "${mlpexp.full_run_name:${hydra.overrides.task}}"
MAX_SHARED = 4096  # configurations that are kept for runs which share them


@dataclass(slots=True, kw_only=True)
class ComposedRun:
    """The configuration and the directory of one run; most of it is shared with other runs."""

    spec: RunSpec
    overrides: tuple[str, ...]
    """those that are not Hydra's own: `hydra.overrides.task`"""
    config: Plain
    """resolved, without Hydra's node; read-only, because parts belong to other runs too"""
    output_dir: str
    """absolute"""
    output_subdir: str | None
    """directory below output_dir for Hydra's three YAML files; None if they are not wanted"""
    log_name: str | None
    """name of the log file in output_dir, if the run's logging opens one"""
    env_set: dict[str, str]
    needs_run_job: bool
    """only Hydra's `run_job` can do what this run asks for, e.g. change the directory"""
    hydra_files: Callable[[], dict[str, str]]
    """makes Hydra's three files, name -> text, when they are written: many runs fit into memory"""


class Composer:
    """Composes the runs of one sweep.

    Args:
        loader: Hydra's.
        master: the configuration of the sweep, as Hydra gives it to a sweeper or launcher.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self.loader, self._master = loader, master
        self._is_group: dict[str, bool] = {}
        self._choices: dict[tuple[Override, ...], _Choice | None] = {}
        self._shared: dict[tuple[tuple[Override, ...], tuple[Override, ...]], tuple[_Choice, Plain]] = {}

    def compose(self, spec: RunSpec) -> ComposedRun:
        """
        Raises:
            HydraException: Hydra cannot compose these overrides.
            OmegaConfBaseException: an interpolation has no value.
        """
        try:
            choice, plain = self._edited(spec)
            node = choice.hydra_node
            sweep_dir, subdir, output_subdir = (
                choice.filled(text, spec, plain) for text in (node.sweep_dir, node.subdir, node.output_subdir)
            )
            output_dir = absolute_directory(str(sweep_dir), str(subdir))
            return ComposedRun(
                spec=spec,
                overrides=tuple(spec.texts),
                config=choice.config.resolved(plain),
                output_dir=output_dir,
                output_subdir=output_subdir,
                log_name=node.log_name,
                env_set=node.env_set,
                needs_run_job=node.needs_run_job,
                hydra_files=partial(self._files, spec, output_dir),
            )
        except (Unusual, HydraException, OmegaConfBaseException, ValueError):
            return self._by_hydra(spec)

    def _files(self, spec: RunSpec, output_dir: str) -> dict[str, str]:
        choice, plain = self._edited(spec)
        return {
            "config.yaml": choice.config.text(plain),
            "hydra.yaml": choice.hydra_node.text(spec, output_dir),
            "overrides.yaml": yaml_text.items(tuple(spec.texts)),
        }

    def full_config(self, spec: RunSpec) -> DictConfig:
        """The run's configuration with Hydra's node, as a launcher hands it to `run_job`.

        Raises:
            HydraException: Hydra cannot compose these overrides.
        """
        try:
            choice, plain = self._edited(spec)
            cfg = choice.full(spec, plain)
            OmegaConf.copy_cache(from_config=self._master, to_config=cfg)
        except (Unusual, HydraException, OmegaConfBaseException, ValueError):
            cfg = self.loader.load_sweep_config(self._master, spec.texts)
        with open_dict(cfg):
            cfg.hydra.job.id = cfg.hydra.job.num = spec.number
        return cfg

    def job_config(self, spec: RunSpec) -> DictConfig:
        """`full_config` as the job finds it in `HydraConfig`: with its output directory."""
        cfg = self.full_config(spec)
        with hydra_config(cfg):
            sweep_dir, subdir = (str(OmegaConf.select(cfg, f"hydra.sweep.{key}")) for key in ("dir", "subdir"))
        with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
            cfg.hydra.runtime.output_dir = absolute_directory(sweep_dir, subdir)
        return cfg

    def _edited(self, spec: RunSpec) -> tuple["_Choice", Plain]:
        """The choice of files, and its configuration with the run's values set, not resolved.

        Runs that differ at the top level only, e.g. in the seed, share the rest.
        """
        groups: list[Override] = []  # choices of files
        below: list[Override] = []  # values below a group of keys
        top: list[Override] = []  # values at the top level
        for override in spec.overrides:
            kind = groups if self._chooses_file(override) else below if "." in override.key else top
            kind.append(override)
        files, shared = tuple(groups), (tuple(groups), tuple(below))
        if shared not in self._shared:
            if files not in self._choices:
                self._choices[files] = None  # until it has proved usual
                texts = [override.text for override in groups]
                self._choices[files] = _Choice(self.loader.load_sweep_config(self._master, texts))
            if (made := self._choices[files]) is None:
                raise Unusual
            plain, copied = dict(made.config.plain), set[tuple[str, ...]]()
            for override in below:
                apply(override, plain, copied)
            if len(self._shared) >= MAX_SHARED:
                self._shared.clear()
            self._shared[shared] = made, plain
        choice, plain = self._shared[shared]
        plain = dict(plain)
        for override in top:
            apply(override, plain, set())
        return choice, plain

    def _chooses_file(self, override: Override) -> bool:
        key = override.key
        if key not in self._is_group:
            if key.startswith("hydra") or not KEY.fullmatch(key.replace("/", ".")):
                raise Unusual
            self._is_group[key] = bool(self.loader.get_group_options(key))
        return self._is_group[key] and not (override.value_text or "").startswith("{")

    def _by_hydra(self, spec: RunSpec) -> ComposedRun:
        """What `run_job` does to the configuration before it runs the job."""
        cfg = self.job_config(spec)
        with hydra_config(cfg):
            env_set = {key: str(value) for key, value in cfg.hydra.job.env_set.items()}
            task = without_hydra(cfg)
            with env_override(env_set):
                config = OmegaConf.to_container(task, resolve=True)
            subdir = cfg.hydra.output_subdir
            log_name, is_usual = log_file(OmegaConf.to_container(cfg.hydra.job_logging), cfg.hydra.job.name)
            overrides = OmegaConf.to_container(cfg.hydra.overrides.task)
            files = {
                "config.yaml": OmegaConf.to_yaml(task),
                "hydra.yaml": OmegaConf.to_yaml(HydraConfig.instance().cfg),
                "overrides.yaml": OmegaConf.to_yaml(overrides),
            }
        return ComposedRun(
            spec=spec,
            overrides=tuple(overrides),  # type: ignore[arg-type]
            config=config,  # type: ignore[arg-type]
            output_dir=cfg.hydra.runtime.output_dir,
            output_subdir=None if subdir is None else str(subdir),
            log_name=log_name,
            env_set=env_set,
            needs_run_job=bool(cfg.hydra.job.chdir) or not is_usual,
            hydra_files=lambda: files,
        )


@contextmanager
def hydra_config(cfg: DictConfig) -> Iterator[None]:
    """While it lasts, `${hydra:...}` and `HydraConfig` refer to `cfg`."""
    singleton = HydraConfig.instance()
    before = singleton.cfg
    try:
        singleton.set_config(cfg)
        yield
    finally:
        singleton.cfg = before


def without_hydra(cfg: DictConfig) -> DictConfig:
    """A copy, as Hydra hands it to the task function."""
    task = copy.deepcopy(cfg)
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task


class _Choice:
    """One set of files: the configuration that they make, before any value is set."""

    def __init__(self, cfg: DictConfig) -> None:
        self._pickled = pickle.dumps(cfg)  # restoring shares nothing between runs and is 20 times faster than composing
        node: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, "hydra"), enum_to_str=True)
        self.hydra_node = HydraNode(node)
        task = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        plain: Any = OmegaConf.to_container(task, structured_config_mode=SCMode.DICT_CONFIG)
        self.config = PlainConfig(plain, sets_environment=bool(self.hydra_node.env_set))

    def full(self, spec: RunSpec, plain: Plain) -> DictConfig:
        """The whole configuration with these values."""
        cfg: DictConfig = pickle.loads(self._pickled)
        with open_dict(cfg):
            for key in self.config.plain.keys() - plain.keys():
                del cfg[key]
            for key, value in plain.items():
                if not self.config.is_own(key, value):
                    cfg[key] = value
        cfg.hydra.overrides.task = spec.texts
        cfg.hydra.job.override_dirname = self.hydra_node.dirname(spec)
        return cfg

    def filled(self, text: Any, spec: RunSpec, plain: Plain) -> Any:
        """A text of Hydra's node with its interpolations replaced."""
        if not isinstance(text, str) or "${" not in text:
            return text
        if text in (_RUN_NAME, _FULL_RUN_NAME):
            overrides = [str(self.config.inserted(override.text, plain)) for override in spec.overrides]
            return run_names.run_name(overrides, full=text == _FULL_RUN_NAME)
        for own in ("${hydra.job.num}", "${hydra:job.num}", "${hydra.job.id}", "${hydra:job.id}"):
            text = text.replace(own, str(spec.number))
        return self.config.inserted(text.replace("${hydra.job.override_dirname}", self.hydra_node.dirname(spec)), plain)
