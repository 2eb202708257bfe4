"""Names of directories: readable, one safe path component each, the same however a command is spelled."""

import hashlib
import re
from collections.abc import Iterable
from functools import cache

from mlpexp.config import schema
from mlpexp.config.overrides import by_key

MAX_BYTES = 200  # below the 255 of common file systems, with room for a suffix
# keys that do not change a run's numbers, or are alike in all runs of a sweep, are not in its name
UNNAMED = schema.WITHOUT_EFFECT | {"plugins", "stack", "hydra"}
_ORDER = {key: i for i, (key, _, _) in enumerate(schema.keys())}
_OF_HYDRA = frozenset({"hydra"})
_SAFE = re.compile(rf"\w[\w,.=+-]{{,{MAX_BYTES - 1}}}", re.ASCII)  # nothing to replace, as nearly all are
_GROUPS = ("model.", "optimizer.", "trainer.", "early_stopping.")


def run_name(overrides: Iterable[str], *, full: bool = False) -> str:
    """A run's directory name from its own overrides: `depth=2,width=64,seed=3`, in the schema's order.

    The same overrides give the same name in any order, and growing a grid does not change it.

    Args:
        full: name every key but Hydra's, also those that do not change the numbers, such as `tracking.figures`.
    """
    unnamed = _OF_HYDRA if full else UNNAMED
    ranked = [
        (_rank(key), key, override.value_text or "")
        for key, override in by_key(overrides).items()
        if _group(key) not in unnamed
    ]
    return safe_component(",".join([f"{short(key)}={value}" for _, key, value in sorted(ranked)]) or "default")


@cache
def _group(key: str) -> str:
    return re.split("[./]", key, maxsplit=1)[0]


def safe_component(name: str) -> str:
    """`name` as one path component: no separator, no control character, not too long; distinct stay distinct."""
    if _SAFE.fullmatch(name):
        return name
    text = name.encode("utf-8", "replace").decode()  # what is no text has no name in a file system
    safe = re.sub(r"[\x00-\x1f\x7f/\\]", "_", text).strip()
    safe = re.sub(r"^[\s.~-]+", "", safe) or "_"
    if safe != name or len(safe.encode()) > MAX_BYTES:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        head = safe.encode()[: MAX_BYTES - 9].decode("utf-8", "ignore")
        safe = f"{head}-{digest}"
    return safe


@cache
def _rank(key: str) -> int:
    # the seed last: that is how a person reads "which network, then which repetition"
    if key == "seed":
        return len(_ORDER) + 1
    position = next((place for name, place in _ORDER.items() if name.startswith(f"{key}.")), len(_ORDER))
    return _ORDER.get(key, position)  # a group, such as optimizer=adam, comes where its keys begin


@cache
def short(key: str) -> str:
    """`model.depth` -> `depth`; data.seed keeps its group, because seed alone is another key."""
    for group in _GROUPS:
        if key.startswith(group) and (name := key.removeprefix(group)) not in ("name", "seed"):
            return name
    return key.removesuffix(".name")
