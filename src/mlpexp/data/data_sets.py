# ruff: noqa: PLW0108 (the lambdas look modules up late: naming a function would import its module)
"""The data sets by name: one entry each, from which choices, checks, digests, sizes and labels follow.

To add a data set, write a function that returns its `Table`, and an entry below; or call `DATA_SETS.register` in a
module of your own. Nothing heavy is imported before a data set is loaded.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mlpexp.runtime.lazy_import import LazyModule
from mlpexp.runtime.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from sklearn import datasets

    from mlpexp.data import array_files, table, tabular_files, user_table
    from mlpexp.data.data_config import DataConfig
    from mlpexp.data.table import Table
else:
    np, datasets = map(LazyModule, ("numpy", "sklearn.datasets"))
    array_files, table, tabular_files, user_table = (
        LazyModule(f"mlpexp.data.{name}") for name in ("array_files", "table", "tabular_files", "user_table")
    )


class Sizes(NamedTuple):
    """The sizes of a data set, on which the memory of a network depends."""

    features: int
    classes: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set.

    Attributes:
        load: reads or generates the table; called once per process for equal configurations.
        digest: SHA-256 of what determines the table, found without loading it; by default of the loaded arrays.
        features, classes, samples: what is known before loading; None where it is known only afterwards, or where the
            configuration says it (`data.classes`, `data.samples`). Of values their number counts as classes.
        image_shape: (height, width) where a sample is an image.
        task: what is learned from it.
        other_tasks: what `data.task` may choose instead.
        keys: keys of the configuration that only such data sets read.
        defaults: values of keys other than the schema's, set by `data=NAME`.
        generated: drawn at random from `data.seed`.
    """

    load: Callable[[DataConfig], Table]
    digest: Callable[[DataConfig], str] | None = None
    features: int | None = None
    classes: int | None = None
    samples: int | None = None
    image_shape: tuple[int, int] | None = None
    task: Literal["classification", "regression"] = "classification"
    other_tasks: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    generated: bool = False

    def sizes(self, cfg: DataConfig) -> Sizes | None:
        """Features, classes and samples without loading; None where they are known after loading only."""
        classes = cfg.classes if "classes" in self.keys else self.classes
        samples = cfg.samples if "samples" in self.keys else self.samples
        if self.features is None or classes is None or samples is None:
            return None
        return Sizes(self.features, classes, samples)


@cache
def _shipped_digest(name: str) -> str:
    return hashlib.sha256(_shipped_file(name).read_bytes()).hexdigest()


def _shipped_file(name: str) -> Path:
    """A file of scikit-learn, found without importing scikit-learn, which takes two seconds."""
    spec = find_spec("sklearn")
    assert spec is not None and spec.origin is not None, "scikit-learn is a requirement of mlpexp"
    return Path(spec.origin).parent / "datasets" / "data" / name


def _digits(cfg: DataConfig) -> Table:
    """Grey images as float32 (1797, 64), values 0 to 16; reading the file saves importing scikit-learn."""
    with gzip.open(_shipped_file("digits.csv.gz"), "rt", encoding="ascii") as lines:
        rows = np.loadtxt(lines, delimiter=",")  # of a row: 64 pixels and the label
    names = [f"pixel_{row}_{column}" for row, column in product(range(8), range(8))]
    return table.Table(rows[:, :-1].astype(np.float32), rows[:, -1].astype(np.int64), list("0123456789"), names)


def _sklearn_table(loader: str, file: str, features: int, classes: int, samples: int) -> DataSet:
    """A table of scikit-learn: float64 inputs in their measured units."""

    def load(cfg: DataConfig) -> Table:
        bunch = getattr(datasets, loader)()
        class_names, columns = ([str(name) for name in names] for names in (bunch.target_names, bunch.feature_names))
        return table.Table(bunch.data, bunch.target.astype(np.int64), class_names, columns)

    return DataSet(
        load=load, digest=lambda cfg: _shipped_digest(file), features=features, classes=classes, samples=samples
    )


def _diabetes(cfg: DataConfig) -> Table:
    """Ten measured features of 442 patients, and the progress of their disease after a year, 25 to 346."""
    bunch = datasets.load_diabetes(scaled=False)
    targets = bunch.target.astype(np.float64)[:, None]
    return table.Table(bunch.data, targets, [], list(bunch.feature_names), target_names=["progression"])


def _diabetes_digest(cfg: DataConfig) -> str:
    digests = [_shipped_digest(name) for name in ("diabetes_data_raw.csv.gz", "diabetes_target.csv.gz")]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


POINTS_VERSION = 1  # of the generators below: change it where they give other points


def _points(
    generate: Callable[[DataConfig], tuple[Any, Any]], classes: int | None = None, noise: float | None = None
) -> DataSet:
    """Points in the plane, generated from `data.seed`.

    Args:
        generate: gives points (N, 2) and labels (N,).
        classes: None where `data.classes` says it.
        noise: default of `data.noise`, where it is not the schema's.
    """

    def load(cfg: DataConfig) -> Table:
        points, labels = generate(cfg)
        names = [str(k) for k in range(classes or cfg.classes)]
        return table.Table(points, labels.astype(np.int64), names, ["x", "y"])

    def digest(cfg: DataConfig) -> str:
        content = [POINTS_VERSION, cfg.name, cfg.samples, cfg.noise, classes or cfg.classes, cfg.seed]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    return DataSet(
        load=load,
        digest=digest,
        features=2,
        classes=classes,
        keys=("samples", "noise") if classes else ("samples", "noise", "classes"),
        defaults={} if noise is None else {"noise": noise},
        generated=True,
    )


def _spirals(cfg: DataConfig) -> tuple[Any, Any]:
    """Arms of equal length around the centre, radius 0.1 to 1, three quarters of a turn each."""
    generator = np.random.default_rng([cfg.seed, 2])  # streams 0 and 1 belong to the split and to label noise
    labels = np.arange(cfg.samples) % cfg.classes
    position = generator.uniform(0, 1, cfg.samples)
    angle = 2 * np.pi * (labels / cfg.classes + 0.75 * position)
    radius = 0.1 + 0.9 * position
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points + generator.normal(0, cfg.noise, points.shape), labels


DATA_SETS: Registry[DataSet] = Registry(
    "data",
    {
        "digits": DataSet(
            load=_digits,
            digest=lambda cfg: _shipped_digest("digits.csv.gz"),
            features=64,
            classes=10,
            samples=1797,
            image_shape=(8, 8),
        ),
        "csv": DataSet(
            load=lambda cfg: user_table.load(cfg),
            digest=lambda cfg: tabular_files.digest(cfg),
            keys=(
                *("path", "target", "val_path", "test_path", "separator", "decimal", "thousands", "encoding"),
                *("columns", "drop", "categorical", "missing", "sample_weight"),
            ),
            other_tasks=("regression",),
        ),
        "npz": DataSet(
            load=lambda cfg: array_files.load(cfg),
            digest=lambda cfg: tabular_files.digest(cfg),
            keys=("path",),
            other_tasks=("regression",),
        ),
        "wine": _sklearn_table("load_wine", "wine_data.csv", 13, 3, 178),
        "breast_cancer": _sklearn_table("load_breast_cancer", "breast_cancer.csv", 30, 2, 569),
        "iris": _sklearn_table("load_iris", "iris.csv", 4, 3, 150),
        "diabetes": DataSet(
            load=_diabetes, digest=_diabetes_digest, features=10, classes=1, samples=442, task="regression"
        ),
        "moons": _points(
            lambda cfg: datasets.make_moons(cfg.samples, noise=cfg.noise, random_state=cfg.seed), classes=2
        ),
        "circles": _points(
            lambda cfg: datasets.make_circles(cfg.samples, noise=cfg.noise, factor=0.5, random_state=cfg.seed),
            classes=2,
            noise=0.1,
        ),
        "spirals": _points(_spirals, noise=0.05),
        "blobs": _points(
            lambda cfg: datasets.make_blobs(
                cfg.samples, centers=cfg.classes, cluster_std=cfg.noise, random_state=cfg.seed
            )[:2],
            noise=1.0,
        ),
    },
)
