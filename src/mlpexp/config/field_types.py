"""Types of configuration fields: what a value must be, checked by pydantic.

Strict throughout: the text '3' is not a number and `true` is not 1, although an integer is accepted as a float.
"""

from collections.abc import Callable, Collection
from contextvars import ContextVar
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from mlpexp.runtime.declared_options import Options
from mlpexp.runtime.registry import Registry

MAX_SEED = 2**32 - 1
Whole = Annotated[int, Field(ge=0, strict=True)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Finite = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Positive = Annotated[Finite, Field(gt=0)]
NonNegative = Annotated[Finite, Field(ge=0)]
Share = Annotated[Finite, Field(ge=0, lt=1)]
OpenShare = Annotated[Finite, Field(gt=0, lt=1)]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]

# the name of a column; Hydra reads the text 5 as a number
Name = Annotated[str, BeforeValidator(lambda value: str(value) if type(value) is int else value)]

# options of user-defined functions, by name
OptionValues = Annotated[dict[str, Any], AfterValidator(Options)]

SCHEMA = ConfigDict(extra="forbid", use_attribute_docstrings=True)


def choice(choices: Callable[[], Collection[str]]) -> Any:
    """A pydantic validator for a name out of a registry, which may grow while the program runs."""

    def check(value: object) -> str:
        names = choices()
        if not isinstance(value, str) or value not in names or not _is_offered(names, value):
            offered = [name for name in names if _is_offered(names, name)]
            raise PydanticCustomError("unknown_choice", "unknown choice", {"choices": offered})
        return value

    check.choices = choices  # type: ignore[attr-defined]
    return PlainValidator(check)


# the digests of the plugins that the configuration names; None: those of all plugins in this process
PLUGINS: ContextVar[frozenset[str] | None] = ContextVar("plugins", default=None)


def _is_offered(names: Collection[str], name: str) -> bool:
    """Whether a choice is mlpexp's own, or of a plugin that the configuration names."""
    offered = PLUGINS.get()
    if offered is None or not isinstance(names, Registry):
        return True
    plugin = names.plugin_of(name)
    return plugin is None or plugin.digest in offered


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The values of a field that has a fixed set of them, as they are typed; empty for others."""
    arms = (field.annotation, *get_args(field.annotation))
    for item in (*field.metadata, *(item for arm in arms for item in getattr(arm, "__metadata__", ()))):
        if isinstance(item, PlainValidator) and hasattr(item.func, "choices"):
            return tuple(item.func.choices())
    for arm in arms:
        if get_origin(arm) is Literal:
            return get_args(arm)
    return ("true", "false") if bool in builtin_types(field.annotation) else ()


def builtin_types(annotation: Any) -> frozenset[type]:
    """The types that a key's values may have, e.g. int and list for `model.width`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return builtin_types(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return frozenset[type]().union(*map(builtin_types, get_args(annotation)))
    if origin is Literal:
        return frozenset(map(type, get_args(annotation)))
    return frozenset({origin or annotation})
