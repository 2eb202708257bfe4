"""Overrides of the command line (`model.depth=2`, `+trainer.precision=64`, `~optimizer`), parsed once."""

import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

Kind = Literal["set", "add", "set_or_add", "delete"]

_KINDS: dict[str, Kind] = {"": "set", "+": "add", "++": "set_or_add", "~": "delete"}
_SIGN = re.compile(r"~|\+{0,2}")
_INTEGER = r"-?(?:0|[1-9]\d*)"
# values whose meaning is known without Hydra's parser, which takes about a millisecond
_NUMBER = re.compile(rf"({_INTEGER})(\.\d+)?", re.ASCII)
_INTEGERS = re.compile(rf"\[({_INTEGER}(?:,{_INTEGER})*)\]", re.ASCII)
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NOT_TEXT = ("true", "false", "null", "none", "nan", "inf")
_CACHED = 1 << 15


@dataclass(frozen=True, slots=True)
class Override:
    """One override of a run.

    Attributes:
        text: as it was typed.
        key: without the sign in front, e.g. `model.depth`; of a group choice the group, e.g. `optimizer`.
        kind: `set` an existing key, `add` a new one (`+`), `set_or_add` (`++`), or `delete` (`~`).
        value_text: the value as it was typed; None for a deletion that names no value.
    """

    text: str
    key: str
    kind: Kind
    value_text: str | None

    @property
    def value(self) -> Any:
        """The value as Hydra reads it, in plain builtins; None for a deletion that names no value.

        Raises:
            HydraException: Hydra cannot read it.
            ValueError: it lists the values of a sweep, so that it is not one value.
        """
        return None if self.value_text is None else _value(self.value_text)

    @property
    def label(self) -> str:
        """The value as tables show it: as it was typed, but without the quotes of a text."""
        if self.value_text and self.value_text[0] in "'\"":
            return str(self.value)
        return self.value_text or ""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One run of a sweep: its place in the order of the grid and its overrides."""

    number: int
    overrides: tuple[Override, ...]

    @property
    def texts(self) -> list[str]:
        return [override.text for override in self.overrides]


@lru_cache(_CACHED)
def parse(text: str) -> Override:
    """The override in `text`. No key contains `=`, so the first one ends it."""
    signed_key, equals, value = text.partition("=")
    sign = _SIGN.match(signed_key)
    assert sign is not None  # it may be empty
    return Override(text, sys.intern(signed_key[sign.end() :]), _KINDS[sign[0]], value if equals else None)


def by_key(texts: Iterable[str]) -> dict[str, Override]:
    """The overrides of a run by their keys; of a key that is given twice, the later one counts."""
    return {override.key: override for override in map(parse, texts)}


def swept_keys(runs: Sequence[Sequence[str]]) -> list[str]:
    """The keys whose values differ between runs, in the order in which they were typed."""
    counts: dict[str, int] = {}  # of the runs that give each key
    values: dict[str, set[str | None]] = {}  # the first two that differ
    for run in runs:  # one by one, since a sweep may have a hundred thousand
        for key, override in by_key(run).items():
            counts[key] = counts.get(key, 0) + 1
            texts = values.setdefault(key, set())
            if len(texts) < 2:
                texts.add(override.value_text)
    # a key that some runs do not give differs there
    return [key for key, texts in values.items() if len(texts) > 1 or (counts[key] < len(runs) and texts != {None})]


def spell(value: Any) -> str:
    """A value of plain builtins as Hydra's grammar writes it: a text that Hydra would misread is quoted."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{','.join(map(spell, value))}]"
        case dict():
            return f"{{{','.join(f'{key}: {spell(item)}' for key, item in value.items())}}}"
        case str() if not _PLAIN.fullmatch(value) or value.lower() in _NOT_TEXT or _is_number(value):
            from hydra.core.override_parser.types import Quote, QuotedString

            # double quotes stay readable in a shell's single ones
            quote = Quote.double if value and '"' not in value else Quote.single
            return QuotedString(value.replace("${", "\\${"), quote).with_quotes()
    return str(value)


def shell_word(key: str, value: Any) -> str:
    """The override `key=value` as one word of a shell's command line."""
    return shell_quote(f"{key}={spell(value)}")


def shell_quote(word: str) -> str:
    """As `shlex.quote`, but a text with single quotes in it is put into double ones, which people can read."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


_PLAIN = re.compile(r"[\w./%@?|-]+", re.ASCII)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@lru_cache(_CACHED)
def _value(text: str) -> Any:
    if match := _NUMBER.fullmatch(text):
        return float(text) if match[2] else int(text)
    if match := _INTEGERS.fullmatch(text):
        return [int(item) for item in match[1].split(",")]
    if _WORD.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    from hydra.core.override_parser.overrides_parser import OverridesParser  # antlr: late

    override = OverridesParser.create().parse_override(f"key={text}")
    if override.is_sweep_override():
        raise ValueError(f"{text} lists several values")
    return _plain(override.value())


def _plain(value: Any) -> Any:
    """Hydra's reading of a value without its own types for quoted texts."""
    match value:
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {_plain(key): _plain(item) for key, item in value.items()}
    return getattr(value, "text", value)
