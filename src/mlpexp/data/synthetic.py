"""Points in the plane, made from a seed: moons, circles, spirals, blobs."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import make_blobs, make_circles, make_moons

from mlpexp.config.schema import DataConfig
from mlpexp.data import data_digest
from mlpexp.data.datamodule import TableDataModule
from mlpexp.data.raw_table import Table

Points = tuple[NDArray[np.float64], NDArray[np.int64]]
TURNS = 0.75  # of each spiral around the centre


def generated_table(cfg: DataConfig) -> Table:
    """`data.samples` points (N, 2) of `data.classes` kinds; the same for the same `data.seed`."""
    return _table(cfg.name, cfg.samples, cfg.noise, cfg.num_generated_classes, cfg.seed, data_digest.of(cfg))


@lru_cache(maxsize=128)
def _table(name: str, samples: int, noise: float, classes: int, seed: int, identity: str) -> Table:
    match name:
        case "moons":
            points, labels = make_moons(samples, noise=noise, random_state=seed)
        case "circles":
            points, labels = make_circles(samples, noise=noise, factor=0.5, random_state=seed)
        case "spirals":
            points, labels = spirals(samples, noise, classes, seed)
        case _:
            points, labels = make_blobs(samples, centers=classes, cluster_std=noise, random_state=seed)
    return Table(points, labels.astype(np.int64), [str(k) for k in range(classes)], identity, ["x", "y"])


def spirals(samples: int, noise: float, classes: int, seed: int) -> Points:
    """Arms of equal length that wind around the centre, radius 0.1 to 1; `noise` in the same unit."""
    generator = np.random.default_rng([seed, 2])  # another stream than the split's and the label noise's
    labels = np.arange(samples) % classes
    along = generator.uniform(0, 1, samples)
    angle = 2 * np.pi * (labels / classes + TURNS * along)
    radius = 0.1 + 0.9 * along
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points + generator.normal(0, noise, points.shape), labels


class GeneratedDataModule(TableDataModule):
    """Points in the plane, standardised."""
