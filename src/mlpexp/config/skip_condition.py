"""`skip=model.depth>3 and model.width>128`: a condition over the configuration of a run.

Python's syntax for comparisons and arithmetic, read as a tree and evaluated here: no name but keys and choices has a
meaning, and nothing is executed.
"""

import ast
import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from mlpexp.config import schema, user_options
from mlpexp.config.field_types import builtin_types
from mlpexp.config.overrides import spell
from mlpexp.config.sweep_syntax import SKIP_EXAMPLE
from mlpexp.config.unknown_keys import unknown_key
from mlpexp.runtime.errors import ConfigError, UserError

MAX_LENGTH = 10_000
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
    ast.Is: operator.eq,
    ast.IsNot: operator.ne,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "len": len,
    # of equal widths, which may be one number, too
    "max": lambda value: value if _is_number(value) else max(value),
    "min": lambda value: value if _is_number(value) else min(value),
    "sum": sum,
    "abs": abs,
}
_WORDS = {"true": True, "false": False, "null": None}


class SkipCondition:
    """A condition whose keys are known.

    Args:
        text: as it was typed.
        added: keys that the sweep adds to the schema's, e.g. `trainer.precision`.

    Raises:
        UserError: it is no condition.
        ConfigError: a key or a choice does not exist; each in a line.
    """

    def __init__(self, text: str, added: Collection[str] = ()) -> None:
        self.text = " ".join(text.split())
        try:
            if len(text) > MAX_LENGTH:
                raise ValueError("it is too long")
            if "${" in text:
                raise ValueError("keys stand in it without ${}: model.depth")
            if not self.text:
                raise ValueError("it is empty")
            self._tree = ast.parse(f"(\n{text}\n)", mode="eval").body  # in brackets it may have several lines
            self._keys = frozenset([*schema.field_types(), *user_options.keys(), *added])
            names = list(_names(self._tree))
            words = {word for name in names for word in _choices(name)}
            wrong = dict(self._wrong_choices())
            unknown = [name for name in names if not self._is_key(name) and name not in (*words, *_WORDS, *wrong)]
            texts = set(self._compared_with_texts())
            problems = [
                *wrong.values(),
                *(
                    f"{name} is no key; write a text in quotes, '{name}'" if name in texts else unknown_key(name)
                    for name in dict.fromkeys(unknown)
                ),
            ]
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else str(error)
            raise UserError(
                f"skip={self.text} cannot be read ({reason}); compare keys with ==, !=, <, >, in, and join comparisons "
                f"with and, or, not, e.g. {SKIP_EXAMPLE}"
            ) from None
        if problems:
            raise ConfigError([f"skip={self.text}: {problem}" for problem in problems])

    def holds(self, config: Mapping[str, Any]) -> bool:
        """
        Args:
            config: of a run, nested.

        Raises:
            UserError: a value is of a kind that cannot be compared so.
        """
        try:
            result = self._value(self._tree, config)
            if not isinstance(result, bool):
                raise TypeError(f"its value is {result!r}, neither true nor false")
            return result
        except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
            values = ", ".join(
                f"{name}={spell(_value_of_key(config, name))}" for name in _names(self._tree) if self._is_key(name)
            )
            where = f", where {values}" if values else ""
            raise UserError(
                f"skip={self.text}: {error}{where}; join a comparison that excludes such runs with and, or "
                "use max(…) of a list"
            ) from None

    def _is_key(self, name: str) -> bool:
        return name in self._keys or f"{name}.name" in self._keys

    def _value(self, node: ast.expr, config: Mapping[str, Any]) -> Any:
        match node:
            case ast.BoolOp():
                is_and = isinstance(node.op, ast.And)
                for part in node.values:
                    value = self._value(part, config)
                    if not isinstance(value, bool):
                        raise TypeError(f"{ast.unparse(part)} is {value!r}, neither true nor false")
                    if value is not is_and:
                        return value
                return is_and
            case ast.UnaryOp(op=ast.Not()):
                return not self._value(node.operand, config)
            case ast.UnaryOp():
                return -self._value(node.operand, config)
            case ast.Compare():
                left = self._value(node.left, config)
                for sign, part in zip(node.ops, node.comparators, strict=True):
                    right = self._value(part, config)
                    if not _COMPARISONS[type(sign)](left, right):
                        return False
                    left = right
                return True
            case ast.BinOp():
                sides = self._value(node.left, config), self._value(node.right, config)
                if not all(isinstance(side, int | float) for side in sides):
                    raise TypeError(f"{ast.unparse(node)} needs two numbers")
                return _ARITHMETIC[type(node.op)](*sides)
            case ast.Call():
                return _FUNCTIONS[ast.unparse(node.func)](self._value(node.args[0], config))
            case ast.List() | ast.Tuple():
                return [self._value(item, config) for item in node.elts]
            case ast.Constant():
                return node.value
        name = ast.unparse(node)
        return _value_of_key(config, name) if self._is_key(name) else _WORDS.get(name, name)

    def _compared_with_texts(self) -> Iterator[str]:
        """The words that are compared with keys of free texts, such as `name`."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Compare):
                sides = list(map(ast.unparse, [node.left, *node.comparators]))
                if any(str in builtin_types(schema.field_types().get(side)) for side in sides):
                    yield from (side for side in sides if side.isidentifier() and not self._is_key(side))

    def _wrong_choices(self) -> Iterator[tuple[str, str]]:
        """Texts that are compared with a key of fixed choices and are none of them, each with a message."""
        for node in ast.walk(self._tree):
            if not isinstance(node, ast.Compare):
                continue
            sides = [node.left, *node.comparators]
            keys = [name for name in map(ast.unparse, sides) if self._is_key(name) and _choices(name)]
            items = [item for side in sides for item in getattr(side, "elts", [side])]
            for key in keys:
                texts = [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]
                texts += [text for text in map(ast.unparse, items) if text.isidentifier() and not self._is_key(text)]
                for text in dict.fromkeys(texts):
                    if text not in _choices(key) and text not in _WORDS:
                        yield text, f"unknown {key} '{text}'; choose one of {', '.join(_choices(key))}"


def _names(node: ast.AST) -> Iterator[str]:
    """The dotted names of a condition."""
    match node:
        case ast.Name() | ast.Attribute():
            inner = node
            while isinstance(inner, ast.Attribute):
                inner = inner.value  # type: ignore[assignment]
            if not isinstance(inner, ast.Name):
                raise ValueError(f"{ast.unparse(node)} is no key")
            yield ast.unparse(node)
            return
        case ast.Call():
            name = ast.unparse(node.func)
            if name not in _FUNCTIONS or len(node.args) != 1 or node.keywords:
                raise ValueError(f"the functions are {', '.join(_FUNCTIONS)}, each of one list or number")
            yield from _names(node.args[0])
            return
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return
        case ast.BoolOp() | ast.Compare() | ast.List() | ast.Tuple():
            pass
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            pass
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            pass
        case _:
            raise ValueError(f"{ast.unparse(node)} has no place in a condition")
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield from _names(child)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _choices(key: str) -> tuple[str, ...]:
    choices = schema.choices()
    return choices.get(key) or choices.get(f"{key}.name") or ()


def _value_of_key(config: Mapping[str, Any], key: str) -> Any:
    """The value of a key; of a group such as `optimizer` its name; None where a run does not have the key."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    if key == "model.depth" and node is None:
        return _depth(config.get("model"))
    return node.get("name") if isinstance(node, Mapping) else node


def _depth(model: Any) -> int | None:
    """The number of hidden layers where `model.depth` has its default; None of a network of the user's own."""
    if not isinstance(model, Mapping) or model.get("_target_") is not None or "width" not in model:
        return None
    return len(model["width"]) if isinstance(model["width"], list) else 1
