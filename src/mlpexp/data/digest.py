"""What identifies a data set: the SHA-256 of its bytes, found without reading it as data."""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mlpexp.config import DataConfig

DIGITS_FILE = "datasets/data/digits.csv.gz"


@cache
def digits_digest() -> str:
    """Of the file that scikit-learn ships; scikit-learn itself, two seconds to import, is not needed for it."""
    spec = find_spec("sklearn")
    assert spec is not None and spec.origin is not None, "scikit-learn is a requirement of mlpexp"
    return hashlib.sha256((Path(spec.origin).parent / DIGITS_FILE).read_bytes()).hexdigest()


def of(cfg: DataConfig) -> str:
    """The digest of the data that `cfg` names."""
    assert cfg.name == "digits"
    return digits_digest()
