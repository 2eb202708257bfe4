"""Messages for values that have the wrong type or are out of range, from the errors of pydantic."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from mlpexp.config.overrides import shell_word, spell
from mlpexp.config.schema import Config, choices, default_values
from mlpexp.config.unknown_keys import unknown_key

_PLUGIN = "my_plugin.py"
# examples for keys whose default does not show what to type
EXAMPLES: dict[str, Any] = {
    "model.depth": 2,
    "model.dropout": 0.2,
    "model.input_dropout": 0.2,
    "data.folds": 5,
    "early_stopping.patience": 5,
    "tracking.figures": False,
    "tracking.diagnostics": False,
    "stack.threads": 2,
    "stack.memory_mib": 2000,
    "halving.rungs": [1, 3, 9],
    "metrics": ["f1", "auroc"],
    "loss.name": "mse",
    "prune.rewind": "initial",
    "name": "depths",
    "plugins": [_PLUGIN],
    "tracker": "csv",
}
# what keys of several types take
_UNIONS = {
    "model.width": "a whole number from 1, or a list with one for each layer, e.g. model.width=64 or "
    "model.width=[64,32]",
    "model.dropout": "a share in [0, 1), or a list with one for each hidden layer, e.g. model.dropout=0.2",
    "optimizer.betas": f"two shares in [0, 1), e.g. {shell_word('optimizer.betas', [0.9, 0.999])}",
}


def messages(error: ValidationError) -> list[str]:
    """One message for each key that pydantic rejects."""
    by_key: dict[str, str] = {}
    words: dict[str, str] = {}  # that a key takes beside numbers
    for problem in error.errors(include_url=False):
        path = [str(part) for part in problem["loc"]]
        key = ".".join(path[:2]) if path[0] in Config.__pydantic_fields__ else path[0]  # type: ignore[attr-defined]
        if key not in default_values() and path[0] in default_values():  # an item of a list
            key = path[0]
        if path[-1] == "_target_" and path[0] != "model":  # has a message of its own
            continue
        if key in by_key and problem["type"] == "literal_error":
            words[key] = problem["ctx"]["expected"].replace("'", "")
        if key not in by_key:  # a union reports once for each of its arms
            by_key[key] = _message(".".join(path), key, problem["type"], problem["input"], problem.get("ctx", {}))
    for key, word in words.items():
        by_key[key] = by_key[key].replace("is not a whole number", f"is neither a whole number nor {word}")
        if "it must be" in by_key[key]:
            by_key[key] = by_key[key].replace("; e.g.", f", or {word}; e.g.", 1)
    return list(by_key.values())


def _message(path: str, key: str, kind: str, value: Any, allowed: Mapping[str, Any]) -> str:
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return unknown_key(path)
    defaults = default_values()
    assignment, example = f"{key}={spell(value)}", f"e.g. {key}={spell(EXAMPLES.get(key, defaults.get(key)))}"
    if key in _UNIONS:
        return f"{assignment}: give {_UNIONS[key]}"
    match kind:
        case "literal_error" | "unknown_choice":
            return _unknown_choice(key, value, allowed.get("choices"))
        case "int_type" | "int_from_float" | "int_parsing":
            return f"{assignment} is not a whole number; {example}"
        case "float_type" | "float_parsing":
            return f"{assignment} is not a number; {example}"
        case "finite_number":
            return f"{assignment} is not finite; {example}"
        case "bool_type":
            return f"{assignment} is neither true nor false; {example}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
            bound = " and ".join(f"{signs[name]} {limit:g}" if isinstance(limit, float) else f"{signs[name]} {limit}"
                                 for name, limit in allowed.items())  # fmt: skip
            return f"{assignment} is out of range: it must be {bound}; {example}"
        case "dataclass_type" | "dict_type":
            inner = [name for name in defaults if name.startswith(f"{key}.")]
            hint = (
                f"set its keys one by one, e.g. {inner[0]}={spell(defaults[inner[0]])}" if inner else "give a mapping"
            )
            return f"{assignment} replaces a whole group; {hint}"
        case "value_error":
            return f"{assignment} {allowed['error']}; leave it out, or set it to null"
        case "tuple_type" if key == "plugins" and not (isinstance(value, str) and value.strip()):
            return f"{assignment} is no list; {example}"
        case "tuple_type":
            names = [value if isinstance(value, str | int) and not isinstance(value, bool) else spell(value)]
            return f"{assignment}: give a list, e.g. {shell_word(key, names)}"
        case "string_type" if path == key and isinstance(value, list) and value:
            return f"{assignment}: give one name, not a list, e.g. {shell_word(key, value[0])}"
        case "string_type" if isinstance(value, bool | float):
            name = spell(value)
            return f"{assignment} is not text; quote it, e.g. {shell_word(key, name if path == key else [name])}"
    return f"{assignment} is not text; {example}"


def _unknown_choice(key: str, value: Any, names: Sequence[str] | None) -> str:
    allowed = sorted(choices()[key] if names is None else names)
    close = get_close_matches(str(value), allowed, n=1)
    example = close[0] if close else default_values()[key] or allowed[0]
    if isinstance(EXAMPLES.get(key, default_values().get(key)), list | tuple):
        example = f"[{example}]"
    group, _, name = key.rpartition(".")
    subject = group if name == "name" else name.removesuffix("s")
    plugin_hint = "" if names is None else f"; one of your own is registered by a module, plugins=[{_PLUGIN}]"
    return f"unknown {subject} {value!r}; choose one of {', '.join(allowed)}, e.g. {key}={example}{plugin_hint}"
