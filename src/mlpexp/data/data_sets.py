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

from mlpexp.runtime.registry import Registry

if TYPE_CHECKING:
    from mlpexp.data.data_config import DataConfig
    from mlpexp.data.table import Table


class Sizes(NamedTuple):
    """What a network's memory depends on."""

    features: int
    classes: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set.

    Attributes:
        load: reads or generates the table; called once per process for equal configurations.
        digest: SHA-256 of what determines the table, found without loading it; by default of the loaded arrays.
        features, classes, samples: what is known before loading; None where only loading tells, or where the
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
        """Features, classes and samples without loading; None where only loading tells."""
        classes = cfg.classes if "classes" in self.keys else self.classes
        samples = cfg.samples if "samples" in self.keys else self.samples
        if self.features is None or classes is None or samples is None:
            return None
        return Sizes(self.features, classes, samples)


def _shipped_file(name: str) -> Path:
    """A file of scikit-learn, found without importing scikit-learn, which takes two seconds."""
    spec = find_spec("sklearn")
    assert spec is not None and spec.origin is not None, "scikit-learn is a requirement of mlpexp"
    return Path(spec.origin).parent / "datasets" / "data" / name


@cache
def _shipped_digest(name: str) -> str:
    return hashlib.sha256(_shipped_file(name).read_bytes()).hexdigest()


def _digits() -> DataSet:
    file, shape = "digits.csv.gz", (8, 8)

    def load(cfg: DataConfig) -> Table:
        """Grey images as float32 (1797, 64), values 0 to 16; reading the file saves importing scikit-learn."""
        import numpy as np

        from mlpexp.data.table import Table

        with gzip.open(_shipped_file(file), "rt", encoding="ascii") as lines:
            rows = np.loadtxt(lines, delimiter=",")  # of a row: 64 pixels and the label
        names = [f"pixel_{row}_{column}" for row, column in product(*map(range, shape))]
        return Table(rows[:, :-1].astype(np.float32), rows[:, -1].astype(np.int64), list("0123456789"), names)

    return DataSet(
        load=load,
        digest=lambda cfg: _shipped_digest(file),
        features=64,
        classes=10,
        samples=1797,
        image_shape=shape,
    )


def _sklearn_table(loader: str, file: str, features: int, classes: int, samples: int) -> DataSet:
    """A table of scikit-learn: float64 inputs in their measured units."""

    def load(cfg: DataConfig) -> Table:
        import numpy as np
        from sklearn import datasets

        from mlpexp.data.table import Table

        bunch = getattr(datasets, loader)()
        class_names, columns = ([str(each) for each in names] for names in (bunch.target_names, bunch.feature_names))
        return Table(bunch.data, bunch.target.astype(np.int64), class_names, columns)

    return DataSet(
        load=load, digest=lambda cfg: _shipped_digest(file), features=features, classes=classes, samples=samples
    )


def _diabetes() -> DataSet:
    file = "diabetes_data_raw.csv.gz"

    def load(cfg: DataConfig) -> Table:
        """Ten measured features of 442 patients, and the progress of their disease after a year, 25 to 346."""
        import numpy as np
        from sklearn.datasets import load_diabetes

        from mlpexp.data.table import Table

        bunch = load_diabetes(scaled=False)
        targets = bunch.target.astype(np.float64)[:, None]
        return Table(bunch.data, targets, [], list(bunch.feature_names), target_names=["progression"])

    return DataSet(
        load=load,
        digest=lambda cfg: hashlib.sha256(
            (_shipped_digest(file) + _shipped_digest("diabetes_target.csv.gz")).encode()
        ).hexdigest(),
        features=10,
        classes=1,
        samples=442,
        task="regression",
    )


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
        import numpy as np

        from mlpexp.data.table import Table

        points, labels = generate(cfg)
        names = [str(k) for k in range(classes or cfg.classes)]
        return Table(points, labels.astype(np.int64), names, ["x", "y"])

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


def _moons(cfg: DataConfig) -> tuple[Any, Any]:
    from sklearn.datasets import make_moons

    points: tuple[Any, Any] = make_moons(cfg.samples, noise=cfg.noise, random_state=cfg.seed)
    return points


def _circles(cfg: DataConfig) -> tuple[Any, Any]:
    from sklearn.datasets import make_circles

    points: tuple[Any, Any] = make_circles(cfg.samples, noise=cfg.noise, factor=0.5, random_state=cfg.seed)
    return points


def _blobs(cfg: DataConfig) -> tuple[Any, Any]:
    from sklearn.datasets import make_blobs

    return make_blobs(cfg.samples, centers=cfg.classes, cluster_std=cfg.noise, random_state=cfg.seed)[:2]


def _spirals(cfg: DataConfig) -> tuple[Any, Any]:
    """Arms of equal length around the centre, radius 0.1 to 1, three quarters of a turn each."""
    import numpy as np

    generator = np.random.default_rng([cfg.seed, 2])  # streams 0 and 1 belong to the split and to label noise
    labels = np.arange(cfg.samples) % cfg.classes
    along = generator.uniform(0, 1, cfg.samples)
    angle = 2 * np.pi * (labels / cfg.classes + 0.75 * along)
    radius = 0.1 + 0.9 * along
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points + generator.normal(0, cfg.noise, points.shape), labels


def _user_table(cfg: DataConfig) -> Table:
    from mlpexp.data.user_table import load

    return load(cfg)


def _user_digest(cfg: DataConfig) -> str:
    from mlpexp.data.tabular_files import digest

    return digest(cfg)


def _arrays(cfg: DataConfig) -> Table:
    from mlpexp.data.array_files import load

    return load(cfg)


DATA_SETS: Registry[DataSet] = Registry(
    "data",
    {
        "digits": _digits(),
        "csv": DataSet(
            load=_user_table,
            digest=_user_digest,
            keys=(
                *("path", "target", "val_path", "test_path", "separator", "decimal", "thousands", "encoding"),
                *("columns", "drop", "categorical", "missing", "sample_weight"),
            ),
            other_tasks=("regression",),
        ),
        "npz": DataSet(load=_arrays, digest=_user_digest, keys=("path",), other_tasks=("regression",)),
        "wine": _sklearn_table("load_wine", "wine_data.csv", 13, 3, 178),
        "breast_cancer": _sklearn_table("load_breast_cancer", "breast_cancer.csv", 30, 2, 569),
        "iris": _sklearn_table("load_iris", "iris.csv", 4, 3, 150),
        "diabetes": _diabetes(),
        "moons": _points(_moons, classes=2),
        "circles": _points(_circles, classes=2, noise=0.1),
        "spirals": _points(_spirals, noise=0.05),
        "blobs": _points(_blobs, noise=1.0),
    },
)
