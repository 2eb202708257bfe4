"""Options of user-defined functions: their keyword-only arguments, as keys of the configuration.

`def bump(x, *, slope: float = 0.5)` declares the option `slope`: its type, its default, and with
`Annotated[float, Field(gt=0, description="...")]` its bounds and its line of help.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

PLAIN = (bool, int, float, str)


class Options(dict[str, Any]):
    """Values of options by name, which nothing changes; hashable."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted((name, repr(value)) for name, value in self.items())))


@dataclass(frozen=True)
class DeclaredOption:
    """One option.

    Attributes:
        type: in words, e.g. "float".
        check: what was typed -> the value; raises `ValueError`, which says what is wrong.
    """

    name: str
    type: str
    default: Any
    help: str
    check: Callable[[Any], Any]


@dataclass(frozen=True)
class Declared:
    """The options of one entry of a registry.

    Attributes:
        make: values -> the entry with these values.
    """

    options: Mapping[str, DeclaredOption]
    make: Callable[[Mapping[str, Any]], Any]
    _made: dict[Options, Any] = field(default_factory=dict)

    def entry(self, values: Mapping[str, Any]) -> Any:
        """The entry with these values; each is made once."""
        key = Options(values)
        if key not in self._made:
            self._made[key] = self.make(key)
        return self._made[key]


def options_of(function: Callable[..., Any]) -> dict[str, DeclaredOption]:
    """The options that a function, or a class, declares.

    Raises:
        ValueError: one has no default, or its type is no type of a key.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions of C have no signature
        return {}
    keyword_only = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    if not keyword_only:
        return {}
    try:
        source = function.__init__ if isinstance(function, type) else inspect.unwrap(function)  # type: ignore[misc]
        hints = get_type_hints(getattr(source, "func", source), include_extras=True)
    except Exception as error:  # whatever an annotation raises
        raise ValueError(f"has annotations that cannot be read: {error}") from error
    return {parameter.name: _option(parameter, hints.get(parameter.name)) for parameter in keyword_only}


def _option(parameter: inspect.Parameter, annotation: Any) -> DeclaredOption:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError  # late: few plugins have options
    from pydantic.errors import PydanticSchemaGenerationError
    from pydantic.fields import FieldInfo

    name, default = parameter.name, parameter.default
    if default is parameter.empty:
        raise ValueError(f"has the keyword-only argument {name} without a default; give it one, e.g. {name}: float=1.0")
    if annotation is None:
        if type(default) not in PLAIN:
            raise ValueError(
                f"has the keyword-only argument {name}, whose type is not said; annotate it, e.g. {name}: float | None"
            )
        annotation = type(default)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))
        adapter.json_schema()  # of what a configuration can hold there is one
    except (PydanticUserError, PydanticSchemaGenerationError) as error:
        shown = getattr(annotation, "__name__", annotation)
        raise ValueError(f"has the keyword-only argument {name} of the type {shown}, which no key can have") from error

    def check(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
            raise ValueError(message[0].lower() + message[1:]) from None

    try:
        default = check(default)
    except ValueError as error:
        raise ValueError(f"has the keyword-only argument {name}={parameter.default!r}, but {error}") from None
    arms = get_args(annotation) if hasattr(annotation, "__metadata__") else (annotation,)
    described = [item.description for item in arms[1:] if isinstance(item, FieldInfo) and item.description]
    shown = getattr(arms[0], "__name__", None) if isinstance(arms[0], type) and not get_args(arms[0]) else None
    return DeclaredOption(name, shown or str(arms[0]).replace("typing.", ""), default, (described or [""])[0], check)
