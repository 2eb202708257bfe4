"""The configuration of one run, composed of a part that many runs share and the few values of its own.

Three steps: files choose a configuration (`Choice`), values below a group of keys are set in it (`SharedPart`), then
those at the top level, e.g. the seed. The first two are done once for all runs that share them.
"""

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, SCMode, open_dict
from omegaconf.errors import OmegaConfBaseException

from mlpexp.config import run_names, yaml_text
from mlpexp.config.overrides import Override, RunSpec
from mlpexp.config.plain_config import HydraNode, Plain, PlainConfig, Unusual, absolute_directory, apply, keys_read

UNUSUAL = (Unusual, HydraException, OmegaConfBaseException, ValueError)  # Hydra has to compose the run
# interpolations of conf/train.yaml that are known here, so that they need not be resolved for every run
_RUN_NAME = "${mlpexp.run_name:${hydra.overrides.task}}"
_FULL_RUN_NAME = "${mlpexp.full_run_name:${hydra.overrides.task}}"


@dataclass(slots=True, kw_only=True)
class HydraRun:
    """What Hydra's own launchers provide to one run; most of it is shared with other runs."""

    spec: RunSpec
    overrides: tuple[str, ...]
    """those that are not Hydra's own: `hydra.overrides.task`"""
    output_dir: str
    """the directory that the sweep gives it; absolute"""
    output_subdir: str | None = None
    """directory below output_dir for Hydra's three YAML files; None if they are not wanted"""
    log_name: str | None
    """name of the log file in its directory; None if its logging opens none"""
    env_set: dict[str, str]
    """`hydra.job.env_set`: environment variables during its training"""
    needs_run_job: bool = False
    """only Hydra's `run_job` can do what this run asks for, e.g. change the directory"""
    make_files: "MakeFiles | None" = None
    """makes Hydra's three files when they are written, not before, to save memory; None: they are, or never will be"""


@dataclass(slots=True, kw_only=True)
class ComposedRun(HydraRun):
    """A run with its configuration, not checked yet."""

    config: Plain
    """resolved, without Hydra's node; read-only, because parts belong to other runs too"""
    alike: tuple[object, ...] | None = None
    """equal for runs that differ in nothing but the seed, to which nothing else refers; None where that is unknown"""


MakeFiles = Callable[[RunSpec, str], dict[str, str]]
"""Hydra's three files of a run, name -> text, from its directory"""


class SharedPart:
    """The common part of runs that differ in values at the top level only.

    Args:
        plain: the configuration without those values, not resolved.
    """

    def __init__(self, choice: "Choice", plain: Plain) -> None:
        self.choice, self._plain = choice, plain
        self._alike = (self,)
        try:
            self._names = choice.shared_names(plain)
            self._config, read = choice.config.resolved(plain)
            # keys whose values are needed for others, or are made of others
            self._read = read | choice.keys_of_texts
        except UNUSUAL:  # it may be usual with a run's values
            self._config = {}

    def edited(self, top: Sequence[Override]) -> Plain:
        """The configuration with these values at the top level, not resolved."""
        return _with(self._plain, top)

    def run(self, spec: RunSpec, top: Sequence[Override], make_files: MakeFiles) -> ComposedRun:
        """Raises `UNUSUAL`: Hydra has to compose the run."""
        if (
            not self._config
            or any(override.key in self._read for override in top)
            or any("${" in override.text for override in spec.overrides)
        ):
            plain = self.edited(top)
            return self.choice.run(spec, plain, self.choice.config.resolved(plain)[0], make_files)
        run = self.choice.run(spec, self._plain, _with(self._config, top), make_files, self._names)
        other_values = [override for override in top if override.key != "seed"]
        run.alike = (self, *other_values) if other_values else self._alike
        return run


def _with(plain: Plain, top: Sequence[Override]) -> Plain:
    edited = dict(plain)
    for override in top:
        apply(override, edited, set())
    return edited


class Choice:
    """One set of files: the configuration that they make, before any value is set.

    Attributes:
        texts: of Hydra's node, from which a run's directories follow.
        keys_of_texts: at the top level, to which they refer.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self._pickled = pickle.dumps(cfg)  # restoring shares nothing between runs and is 20 times faster than composing
        node: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, "hydra"), enum_to_str=True)
        self._hydra_node = HydraNode(node)
        task = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        plain: Any = OmegaConf.to_container(task, structured_config_mode=SCMode.DICT_CONFIG)
        self.config = PlainConfig(plain, sets_environment=bool(self._hydra_node.env_set))
        self.texts = (self._hydra_node.sweep_dir, self._hydra_node.subdir, self._hydra_node.output_subdir)
        self.keys_of_texts = set[str]().union(*map(keys_read, self.texts))

    def shared_names(self, plain: Plain) -> dict[Any, Any]:
        """The values of those `texts` that are the same for all runs which share a configuration."""
        names = {text: self._filled(text, None, plain) for text in self.texts if "${hydra" not in str(text)}
        if (sweep_dir := self._hydra_node.sweep_dir) in names:  # joining a path to an absolute one is faster
            names[sweep_dir] = absolute_directory(str(names[sweep_dir]), "")
        return names

    def run(
        self,
        spec: RunSpec,
        plain: Plain,
        config: Plain,
        make_files: MakeFiles,
        names: Mapping[Any, Any] = MappingProxyType({}),
    ) -> ComposedRun:
        """
        Args:
            plain: the run's configuration, not resolved; as far as the names of its directories refer to it.
            config: the same, resolved.
            names: see `shared_names`.
        """
        node = self._hydra_node
        sweep_dir, subdir, output_subdir = [
            names[text] if text in names else self._filled(text, spec, plain) for text in self.texts
        ]
        return ComposedRun(
            spec=spec,
            overrides=tuple(spec.texts),
            config=config,
            output_dir=absolute_directory(str(sweep_dir), str(subdir)),
            output_subdir=output_subdir,
            log_name=node.log_name,
            env_set=node.env_set,
            needs_run_job=node.needs_run_job,
            make_files=make_files,
        )

    def files(self, spec: RunSpec, plain: Plain, output_dir: str) -> dict[str, str]:
        """Hydra's three files: name -> text."""
        return {
            "config.yaml": self.config.text(plain),
            "hydra.yaml": self._hydra_node.text(spec, output_dir),
            "overrides.yaml": yaml_text.items(tuple(spec.texts)),
        }

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
        cfg.hydra.job.override_dirname = self._hydra_node.dirname(spec)
        return cfg

    def _filled(self, text: Any, spec: RunSpec | None, plain: Plain) -> Any:
        """A text of Hydra's node with its interpolations replaced; those of Hydra's are a run's."""
        if not isinstance(text, str) or "${" not in text:
            return text
        if spec is None:
            return self.config.inserted(text, plain)
        if text in (_RUN_NAME, _FULL_RUN_NAME):
            overrides = [str(self.config.inserted(override.text, plain)) for override in spec.overrides]
            return run_names.run_name(overrides, full=text == _FULL_RUN_NAME)
        if "${hydra" in text:
            for reference in ("${hydra.job.num}", "${hydra:job.num}", "${hydra.job.id}", "${hydra:job.id}"):
                text = text.replace(reference, str(spec.number))
            text = text.replace("${hydra.job.override_dirname}", self._hydra_node.dirname(spec))
        return self.config.inserted(text, plain)
