"""The configuration of the data (`data.*`), and what contradicts itself in it. Imports nothing heavy."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mlpexp.config.field_types import (
    SCHEMA,
    Count,
    Flag,
    Name,
    NonNegative,
    OpenShare,
    OptionValues,
    Seed,
    Share,
    Text,
    Whole,
    choice,
)
from mlpexp.config.overrides import spell
from mlpexp.data.data_sets import DATA_SETS
from mlpexp.runtime.declared_options import Options

FILE_KEYS = ("path", "val_path", "test_path")


@dataclass(kw_only=True, frozen=True, config=SCHEMA)
class DataConfig:
    name: Annotated[str, choice(lambda: DATA_SETS)] = "digits"
    """the data set: digits (1,797 images of 8x8 pixels), a table of scikit-learn, your own, or generated points"""
    task: Literal["classification", "regression"] | None = None
    """what is predicted: classes or values; null: what the data set is for, of csv classes"""
    split: Literal["stratified", "none"] = "stratified"
    """stratified by class, of values at random; none: train and validate on everything, as the notebook did"""
    val_fraction: OpenShare = 0.15
    """share of all samples kept for validation"""
    test_fraction: Share = 0.15
    """share of all samples kept for the final test; 0 for no test"""
    seed: Seed = 0
    """seed of the split, of label noise and of generated data; independent of the run's seed"""
    folds: Annotated[int, Field(ge=2, strict=True)] | None = None
    """k of stratified k-fold cross-validation: fold number data.fold validates, instead of data.val_fraction"""
    fold: Whole = 0
    """which fold validates, from 0"""
    label_noise: Share = 0.0
    """share of the training labels replaced by a label drawn at random"""
    class_weight: Literal["balanced"] | None = None
    """balanced: training weights each class by n/(k*count); other losses stay unweighted"""
    batch_size: Count | Literal["full"] = 32
    """samples per step; the smaller last batch is kept; full: the whole training part"""
    shuffle: Flag = True
    """a new order each epoch, a pure function of (seed, epoch)"""
    path: Text | None = None
    """csv and npz only: your own table, a CSV or Parquet file, or a file of arrays"""
    target: Name | tuple[Name, ...] | None = None
    """csv only: the column of classes; with data.task=regression of values, or a list of such columns"""
    sample_weight: Name | None = None
    """csv only: a column of weights >= 0 of the samples in the training loss; other losses stay unweighted"""
    val_path: Text | None = None
    """csv only: a separate file for validation, instead of data.val_fraction"""
    test_path: Text | None = None
    """csv only: a separate file for the test, instead of data.test_fraction"""
    separator: Literal["comma", "semicolon", "tab", "pipe", "space"] = "comma"
    """csv only: character between two fields"""
    decimal: Literal["point", "comma"] = "point"
    """csv only: decimal mark of numbers"""
    thousands: Literal["comma", "point", "space", "apostrophe", "underscore"] | None = None
    """csv only: mark that groups the digits of a number in threes; null: there is none"""
    encoding: Text = "utf-8"
    """csv only: text encoding of the file"""
    columns: tuple[Name, ...] | None = None
    """csv only: the features; null: all columns but the target"""
    drop: tuple[Name, ...] = ()
    """csv only: columns that are not features"""
    categorical: tuple[Name, ...] = ()
    """csv only: columns of categories, although they look like numbers"""
    missing: Literal["error", "mean", "median", "most_frequent"] = "error"
    """csv only: replacement of missing numbers, fitted to the training part; categories get the most frequent one"""
    samples: Annotated[int, Field(ge=10, strict=True)] = 1000
    """generated data only: number of points"""
    noise: NonNegative = 0.2
    """generated data only: standard deviation of the noise on each coordinate (of a blob: its own)"""
    classes: Annotated[int, Field(ge=2, strict=True)] = 3
    """spirals and blobs only: number of classes"""
    options: OptionValues = Field(default_factory=Options)
    """options of your own data set, e.g. data.options.wave=2"""

    @property
    def learns(self) -> Literal["classification", "regression"]:
        """The task."""
        return self.task or DATA_SETS[self.name].task

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns that are predicted."""
        return self.target if isinstance(self.target, tuple) else () if self.target is None else (self.target,)

    @property
    def reading(self) -> "DataConfig":
        """The same with defaults for all keys that loading the data set does not read."""
        entry = DATA_SETS[self.name]
        keys = (*entry.keys, "task", "options", *(["seed"] if entry.generated else []))
        return DataConfig(name=self.name, **{key: getattr(self, key) for key in keys})

    def batch(self, samples: int) -> int:
        """Samples per step, with `samples` training samples."""
        return max(1, samples) if self.batch_size == "full" else self.batch_size

    def steps(self, samples: int) -> int:
        """Steps per epoch, with `samples` training samples."""
        return -(-samples // self.batch(samples))

    def relative_to(self, directory: Callable[[], Path]) -> "DataConfig":
        """The same with relative file paths taken from `directory`, which is only called where there are any."""
        paths = {key: Path(path) for key in FILE_KEYS if (path := getattr(self, key))}
        absolute: dict[str, Any] = {
            key: str(directory() / path) for key, path in paths.items() if not path.is_absolute()
        }
        return replace(self, **absolute) if absolute else self

    def elsewhere(self, run: Path) -> Iterator["DataConfig"]:
        """The same with the paths of files as they may be after files or the run's directory have moved.

        The end of a path is looked for below the working directory and below each directory that contains `run`.
        """
        paths = {key: Path(path) for key in FILE_KEYS if (path := getattr(self, key))}
        ends = {key: path.parts[path.is_absolute() :] for key, path in paths.items()}
        for directory in (Path.cwd(), *run.absolute().parents):
            for start in range(min(map(len, ends.values()), default=0)):
                moved = {key: directory.joinpath(*end[start:]) for key, end in ends.items()}
                if all(path.is_file() for path in moved.values()):
                    texts: dict[str, Any] = {key: str(path) for key, path in moved.items()}
                    yield replace(self, **texts)


_DEFAULTS = DataConfig()


def contradictions(cfg: DataConfig, *, resumed: bool = False) -> Iterator[str]:
    """One sentence for each pair of keys that cannot be combined.

    Args:
        resumed: the name of the data set is that of the resumed run; only files that have moved are named here.
    """
    if not resumed:
        yield from _foreign_keys(cfg)
    yield from _task(cfg, resumed)
    if cfg.split == "none" and cfg.folds is not None:
        yield "data.folds needs a split; set data.split=stratified, or leave data.folds out"
    if cfg.folds is None and cfg.fold > 0:
        yield f"data.fold={cfg.fold} needs data.folds, e.g. data.folds=5"
    if cfg.folds is not None and cfg.fold >= cfg.folds:
        yield f"data.fold={cfg.fold} is out of range: with data.folds={cfg.folds} it must be <= {cfg.folds - 1}"
    if cfg.split == "stratified" and cfg.folds is None and cfg.val_fraction + cfg.test_fraction >= 1:
        yield (
            f"data.val_fraction={cfg.val_fraction} and data.test_fraction={cfg.test_fraction} leave nothing "
            "to train on; their sum must be < 1, e.g. data.val_fraction=0.15 data.test_fraction=0.15"
        )
    if cfg.split == "none" and (cfg.val_path or cfg.test_path):
        yield "data.split=none trains and validates on everything; leave data.val_path and data.test_path out"
    if cfg.folds is not None and cfg.val_path:
        yield "data.folds and data.val_path both choose what validates; leave one out"
    if cfg.thousands == cfg.decimal:
        yield f"data.thousands and data.decimal are both {cfg.decimal}; leave data.thousands out"


def _task(cfg: DataConfig, resumed: bool) -> Iterator[str]:
    entry = DATA_SETS[cfg.name]
    if cfg.task is not None and cfg.task not in (entry.task, *entry.other_tasks) and not resumed:
        yield f"data={cfg.name} is for {entry.task}, not for data.task={cfg.task}; leave data.task out"
        return
    if len(set(cfg.targets)) < len(cfg.targets):
        yield f"data.target={spell(list(cfg.targets))} names a column twice; name each once"
    if isinstance(cfg.target, tuple) and not cfg.targets:
        yield "data.target=[] names no column; give one, e.g. data.target=price"
    if cfg.learns == "classification":
        if len(cfg.targets) > 1:
            yield (
                f"data.target={spell(list(cfg.targets))} names several columns, which only values can be: set "
                "data.task=regression, or give one column of classes"
            )
        return
    for key, subject in (("class_weight", "weights of classes"), ("label_noise", "noise of classes")):
        if (value := getattr(cfg, key)) != getattr(_DEFAULTS, key):
            yield f"data.{key}={spell(value)} sets {subject}, and a regression has none; leave it out"


def _foreign_keys(cfg: DataConfig) -> Iterator[str]:
    """Keys that this data set does not read."""
    for key in dict.fromkeys(key for entry in DATA_SETS.values() for key in entry.keys):
        value = getattr(cfg, key)
        if key not in DATA_SETS[cfg.name].keys and value != getattr(_DEFAULTS, key):
            owners = [name for name, entry in DATA_SETS.items() if key in entry.keys]
            yield (
                f"data.{key}={spell(value)} belongs to data={', data='.join(owners)}, not to data={cfg.name}; "
                "leave it out"
            )
