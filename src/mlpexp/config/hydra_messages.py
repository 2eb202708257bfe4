"""Errors of Hydra and OmegaConf in one line: what was given, what is allowed, how to correct it."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from hydra.errors import OverrideParseException
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from mlpexp.config import overrides, plugin_keys, schema
from mlpexp.config.field_types import builtin_types
from mlpexp.config.unknown_keys import unknown_key
from mlpexp.runtime.errors import did_you_mean

GROUPS = ("data", "optimizer", "trainer", "experiment", "hydra/launcher", "hydra/sweeper")
_GROUPS = ", ".join(GROUPS)


def hydra_sentences(error: BaseException, arguments: Sequence[str]) -> list[str]:
    """One message for each problem: Hydra stops at the first unknown key, we name all of them."""
    first_sentence = hydra_sentence(error)
    if not first_sentence.startswith("unknown key"):
        return [first_sentence]
    typed = [overrides.parse(item) for item in arguments if "=" in item and not item.startswith("-")]
    keys = [override.key for override in typed if override.kind == "set"]
    other_sentences = [unknown_key(key) for key in keys if "/" not in key and not _is_known(key)]
    if match := re.match(r"unknown key '(hydra\.(?:sweeper|launcher)\.)([^']+)'", first_sentence):
        # what has not this key has none that only the same plugins have
        lacking = plugin_keys.owners(match[1] + match[2])
        same_plugins = [key for key in keys if key.startswith(match[1])]
        other_sentences += [unknown_key(key) for key in same_plugins if set() < plugin_keys.owners(key) <= lacking]
    return list(dict.fromkeys([first_sentence, *other_sentences]))


def _is_known(key: str) -> bool:
    names = schema.default_values()
    return key in GROUPS or key.startswith("hydra.") or any(f"{name}.".startswith(f"{key}.") for name in names)


def hydra_sentence(error: BaseException) -> str:
    """The message for an error of Hydra or OmegaConf."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        reason = re.search(r"Error parsing override '.*'\n(.*)", text)
        why = f": {reason[1]}" if reason and "EQUAL" not in reason[1] else ""
        if (quoted := _quoted(str(error.override))) is not None:
            return f"cannot read the override '{error.override}': quote its text, {quoted}"
        return f"cannot read the override '{error.override}'{why}; write key=value, e.g. model.depth=2"
    if match := re.search(r"Could not (?:override|append|find) '([^']+)'[^\n]*No match in the defaults list", text):
        return _unknown_group(match[1])
    if match := re.search(r"Could not delete '([^']+)'. No match in the defaults list", text):
        return f"~{match[1]} deletes a choice that is not made; leave it out"
    if match := re.search(r"Multiple values for (\S+)\.", text):
        return f"{match[1]} is chosen twice; to choose another, leave out the +: {match[1]}=…"
    if match := re.search(r"Could not (override|delete)[^']*'([^'=]+)", text):
        key = match[2].lstrip("+~")
        if match[1] == "delete" and key in schema.default_values():
            return f"~{key} deletes nothing: {key} is null, or has another value than the one given"
        looks_like_group = "." not in key and get_close_matches(key, GROUPS, n=1)
        return _unknown_group(key) if looks_like_group else unknown_key(key)
    if "Config group override must be" in text:  # does not say which
        return f"a config group needs the name of one of its choices, e.g. optimizer=adam; the groups are {_GROUPS}"
    if match := re.search(r"Could not find '([^']+)/([^'/]*)'", text):
        options = getattr(error, "options", None) or []
        close = get_close_matches(match[2], options, n=1) or options[:1]
        example = f", e.g. {match[1]}={close[0]}" if close else ""
        return f"unknown {match[1]} '{match[2]}'; choose one of {', '.join(options)}{example}"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        override = overrides.parse(match[1])
        return f"'{override.text}' is a list: add -m to sweep over it{_single_value_hint(override)}"
    if match := re.search(r"Sweeping over Hydra's configuration is not supported : '([^']+)'", text):
        return _several_values_of_hydra(match[1])
    if isinstance(error, OmegaConfBaseException):
        return interpolation_sentence(error)
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return interpolation_sentence(cause)
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _several_values_of_hydra(text: str) -> str:
    key = overrides.parse(text).key
    if swept := re.fullmatch(r"hydra\.sweeper\.params\.(.+)", key):
        return f"'{text}': type {swept[1]}=… itself, which replaces what the experiment says"
    return (
        f"'{text}' has several values, and a key of Hydra's own is the same in all runs of a sweep; give it one value"
    )


def _single_value_hint(override: overrides.Override) -> str:
    """Advice how to type one value with commas in it; empty for keys that take none."""
    types = builtin_types(schema.field_types().get(override.key))
    if types & {list, tuple}:
        word = overrides.shell_quote(f"{override.key}=[{override.value_text}]")
        return f", or write {word} for one list"
    if str in types and override.key not in schema.choices():
        return f", or write {overrides.shell_word(override.key, override.value_text)} for one text"
    return ""


def _quoted(text: str) -> str | None:
    """The override of a key of texts with these quoted, as a word of a shell; None where that would not help."""
    override = overrides.parse(text)
    value = override.value_text
    types = builtin_types(schema.field_types().get(override.key))
    if not value or override.key in schema.choices() or any(mark in value for mark in "\"'"):
        return None
    is_list = value.startswith("[") and value.endswith("]")
    if not (types & {list, tuple} if is_list else str in types):
        return None
    texts = [item.strip() for item in value[1:-1].split(",")] if is_list else value
    sign = text[: text.index(override.key)]
    return overrides.shell_word(f"{sign}{override.key}", texts)


def _unknown_group(text: str) -> str:
    override = overrides.parse(text)
    group, option = override.key, override.value_text
    hint = did_you_mean(group, GROUPS, suffix=f"={option or '…'}")
    # a group has no dot in its name
    if "." in group or (not hint and get_close_matches(group, schema.default_values(), n=1)):
        return unknown_key(group)
    return f"unknown config group '{group}'; {hint or f'the groups are {_GROUPS}'}"


def interpolation_sentence(error: OmegaConfBaseException) -> str:
    first_line = str(error).splitlines()[0]
    key = getattr(error, "full_key", None)
    if key == "hydra.sweeper.params" and "Cannot assign" in first_line:  # Hydra's own sweeper wants a mapping
        return "several grids belong to hydra/sweeper=grid, the default; leave out hydra/sweeper"
    location = f"{key}: " if key else ""
    if isinstance(error, InterpolationKeyError):
        return f"{location}{first_line}; name a key that exists, e.g. ${{model.width}}"
    if match := re.search(r"Environment variable '([^']+)' not found", first_line):
        return f"{location}environment variable {match[1]} is not set; set it, or write ${{oc.env:{match[1]},DEFAULT}}"
    return f"{location}{first_line}"
