"""The configuration of each run of a sweep: what Hydra composes, at a thousandth of the time.

Of a run's overrides some choose files (`optimizer=adam`) and some set values. Hydra composes each distinct set of
choices once; values are then set in nested builtins. Whatever is unusual in a run (a key that does not exist, an
interpolation other than `${key}`) makes Hydra compose that run, which also words the errors.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mlpexp.config.composed_run import UNUSUAL, Choice, ComposedRun, SharedPart
from mlpexp.config.overrides import Override, RunSpec, spell
from mlpexp.config.plain_config import KEY, Plain, Unusual, absolute_directory, apply, log_file

MAX_SHARED = 4096  # configurations that are kept for runs which share them


class Composer:
    """Composes the runs of one sweep.

    Args:
        loader: Hydra's.
        master: the configuration of the sweep, as Hydra gives it to a sweeper or launcher.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self.loader, self._master = loader, master
        self.has_fixed_directory = False
        self._make_files = self._files  # one object for all runs
        self._is_group: dict[str, bool] = {}
        self._choices: dict[tuple[Override, ...], Choice | None] = {}
        self._shared: dict[tuple[tuple[Override, ...], tuple[Override, ...]], SharedPart] = {}

    def fix_directory(self, sweep: Path) -> None:
        """Compose all runs from now on for this sweep's directory, whatever their own settings make of it."""
        self._master = copy.deepcopy(self._master)
        with read_write(self._master), open_dict(self._master):
            self._master.hydra.overrides.hydra.append(f"hydra.sweep.dir={spell(str(sweep))}")
        self._choices.clear()
        self._shared.clear()
        self.has_fixed_directory = True

    def compose(self, spec: RunSpec) -> ComposedRun:
        """
        Raises:
            HydraException: Hydra cannot compose these overrides.
            OmegaConfBaseException: an interpolation has no value.
        """
        try:
            shared, top = self._shared_part(spec)
            return shared.run(spec, top, self._make_files)
        except UNUSUAL:
            return self._by_hydra(spec)

    def _files(self, spec: RunSpec, output_dir: str) -> dict[str, str]:
        choice, plain = self._edited(spec)
        return choice.files(spec, plain, output_dir)

    def full_config(self, spec: RunSpec) -> DictConfig:
        """The run's configuration with Hydra's node, as a launcher hands it to `run_job`.

        Raises:
            HydraException: Hydra cannot compose these overrides.
        """
        try:
            choice, plain = self._edited(spec)
            cfg = choice.full(spec, plain)
            OmegaConf.copy_cache(from_config=self._master, to_config=cfg)
        except UNUSUAL:
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

    def _edited(self, spec: RunSpec) -> tuple["Choice", Plain]:
        """The choice of files, and its configuration with the run's values set, not resolved."""
        shared, top = self._shared_part(spec)
        return shared.choice, shared.edited(top)

    def _shared_part(self, spec: RunSpec) -> tuple["SharedPart", list[Override]]:
        """The part that the run shares with those that differ at the top level only, and its values there."""
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
                self._choices[files] = Choice(self.loader.load_sweep_config(self._master, texts))
            if (choice := self._choices[files]) is None:
                raise Unusual
            plain, copied = dict(choice.config.plain), set[tuple[str, ...]]()
            for override in below:
                apply(override, plain, copied)
            if len(self._shared) >= MAX_SHARED:
                self._shared.clear()
            self._shared[shared] = SharedPart(choice, plain)
        return self._shared[shared], top

    def _chooses_file(self, override: Override) -> bool:
        key = override.key
        if key not in self._is_group:
            if key.startswith("hydra") or not KEY.fullmatch(key.replace("/", ".")):
                raise Unusual
            self._is_group[key] = bool(self.loader.get_group_options(key))
        return self._is_group[key] and not (override.value_text or "").startswith("{")

    def _by_hydra(self, spec: RunSpec) -> ComposedRun:
        """The run composed by Hydra, as `run_job` prepares it before the job."""
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
            make_files=lambda spec, place: files,
        )


@contextmanager
def hydra_config(cfg: DictConfig) -> Iterator[None]:
    """While the block runs, `${hydra:...}` and `HydraConfig` refer to `cfg`."""
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
