"""A cache of results by the identity of objects: thousands of runs share the parts of their configurations."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ByObject(Generic[T]):
    """A function of immutable objects, called once for each of them.

    Objects are not compared for equality, because 1, 1.0 and True are equal. The cache keeps the objects, so that no
    other object gets their id; when it holds `max_objects`, it is cleared.
    """

    def __init__(self, function: Callable[..., T], max_objects: int = 4096) -> None:
        self._function, self._max_objects = function, max_objects
        self._results: dict[tuple[int, ...], tuple[tuple[Any, ...], T]] = {}

    def __call__(self, *values: Any) -> T:
        key = tuple(map(id, values))
        entry = self._results.get(key)
        if entry is not None:
            return entry[1]
        if len(self._results) >= self._max_objects:
            self._results.clear()
        result = self._function(*values)
        self._results[key] = values, result
        return result
