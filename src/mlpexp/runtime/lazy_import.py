"""Modules that are imported when they are first used, so that a table of functions costs no import."""

from importlib import import_module


class LazyModule:
    """Stands for a module until an attribute of it is read.

    An attribute is kept after its first use: later uses cost what those of the module itself cost. `sys.modules` does
    not change before the first use. For type checkers import the real module below `if TYPE_CHECKING:`.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        if attribute.startswith("__"):  # inspection, e.g. by copy and doctest, is not use
            raise AttributeError(attribute)
        value = getattr(import_module(self._name), attribute)
        setattr(self, attribute, value)
        return value
