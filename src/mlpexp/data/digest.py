"""What identifies a data set: the SHA-256 of its bytes, found without reading it as data."""

import hashlib
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mlpexp.config import GENERATED, DataConfig

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
    return shipped_digest(cfg.name)


@cache
def shipped_digest(name: str) -> str:
    """Of the file that scikit-learn ships; scikit-learn itself, two seconds to import, is not needed for it."""
    spec = find_spec("sklearn")
    assert spec is not None and spec.origin is not None, "scikit-learn is a requirement of mlpexp"
    return hashlib.sha256((Path(spec.origin).parent / SHIPPED[name]).read_bytes()).hexdigest()
