"""What identifies a data set: the SHA-256 of its bytes, found without reading it as data."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlpexp.config.schema import GENERATED, DataConfig
from mlpexp.data.tabular_files import read_bytes, stamp
from mlpexp.runtime.errors import UserError

# below scikit-learn's own directory
SHIPPED = {
    "digits": "datasets/data/digits.csv.gz",
    "wine": "datasets/data/wine_data.csv",
    "breast_cancer": "datasets/data/breast_cancer.csv",
    "iris": "datasets/data/iris.csv",
}
RECIPE = 1  # of generated data: another number, other points


def of(cfg: DataConfig) -> str:
    """The digest of the data that `cfg` names."""
    if cfg.name in GENERATED:
        recipe = [RECIPE, cfg.name, cfg.samples, cfg.noise, cfg.num_generated_classes, cfg.seed]
        return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
    if cfg.name == "csv":
        return _of_files(tuple((key, path, *stamp(key, path)) for key, path in own_files(cfg).items()))
    return shipped_digest(cfg.name)


@lru_cache(maxsize=64)
def _of_files(files: tuple[tuple[Any, ...], ...]) -> str:
    # a sweep asks once for each run; a file that was written to has another stamp
    return of_contents({key: read_bytes(key, path) for key, path, *_ in files})


def own_files(cfg: DataConfig) -> dict[str, str]:
    """A person's own files by the keys that name them, the training part's first.

    Raises:
        UserError: no file is named.
    """
    if cfg.path is None:
        raise UserError("data=csv needs a file and its column of classes, e.g. data.path=table.csv data.target=species")
    paths = {"data.path": cfg.path, "data.val_path": cfg.val_path, "data.test_path": cfg.test_path}
    return {key: path for key, path in paths.items() if path is not None}


def of_contents(contents: Mapping[str, bytes]) -> str:
    """Of the bytes of one file, or of several with what each is for."""
    digests = {key: hashlib.sha256(content).hexdigest() for key, content in contents.items()}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


@cache
def shipped_digest(name: str) -> str:
    """Of the file that scikit-learn ships."""
    return hashlib.sha256(shipped(name).read_bytes()).hexdigest()


def shipped(name: str) -> Path:
    """The file that scikit-learn ships; scikit-learn itself, two seconds to import, is not needed to find it."""
    spec = find_spec("sklearn")
    assert spec is not None and spec.origin is not None, "scikit-learn is a requirement of mlpexp"
    return Path(spec.origin).parent / SHIPPED[name]
