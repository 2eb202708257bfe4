"""Extensions of Hydra's grammar, which are rewritten into it before Hydra reads the command line.

`zip(a=[1,2],b=[3,4])` varies keys together, `skip=CONDITION` leaves runs out, `limit=N` trains a random part: these
become keys of the grid sweeper. `key=logrange(0.001,1,7)` becomes the list of its values. The same texts stand in YAML
below `hydra.sweeper`, where they reach `groups` and `values` as they are.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlpexp.config import overrides
from mlpexp.config.overrides import Override, spell
from mlpexp.runtime.errors import ConfigError, UserError

SWEEPER = "hydra.sweeper."
MAX_COUNT = 100_000
ZIP_EXAMPLE = "'zip(model.width=[32,64],optimizer.lr=[0.1,0.05])'"
_KEY = re.compile(r"\s*\+{0,2}[A-Za-z_][\w./@-]*\s*=(?!=)", re.ASCII)
_LOG_RANGE = re.compile(r"\s*logrange\(([^,()]+),([^,()]+),([^,()]+)\)\s*", re.ASCII)
_PAIRS = {"(": ")", "[": "]", "{": "}"}


def for_hydra(arguments: Sequence[str], *, is_sweep: bool) -> list[str]:
    """The arguments as Hydra's grammar has them.

    Raises:
        UserError: one of them cannot be read, or belongs to a sweep and this is none.
    """
    rewritten: list[str] = []
    zips: list[str] = []
    skips: list[str] = []
    for text in arguments:
        override = overrides.parse(text)
        name, value = "zip" if text.startswith("zip(") else override.key, override.value_text
        if text.startswith("-") or (value is None and name != "zip"):
            rewritten.append(text)
            continue
        if name in ("zip", "skip", "limit") and not is_sweep:
            raise ConfigError([f"{text} chooses the runs of a sweep; add -m, or leave it out"])
        if name in ("zip", "skip") and value == "null":  # without that of an experiment
            rewritten.append(f"{SWEEPER}{name}=null")
        elif name == "zip":
            zipped(text)  # an error names what was typed
            zips.append(text)
        elif name == "skip":
            skips.append(value or "")
        elif name == "limit":
            rewritten.append(f"{SWEEPER}limit={value}")
        else:
            rewritten.append(with_log_range(text))
    # one text: OmegaConf lets it replace a mapping of an experiment, but no list
    rewritten += [f"{SWEEPER}zip={spell(','.join(zips))}"] if zips else []
    return [*rewritten, f"{SWEEPER}skip={spell(skips)}"] if skips else rewritten


def groups(zips: Any) -> list[list[str]]:
    """The overrides of each group of keys that vary together: `[["model.width=32,64", "optimizer.lr=0.1,0.05"]]`.

    Args:
        zips: a mapping of keys to lists, a list of such mappings, or a text of one or several `zip(...)`.

    Raises:
        UserError: it is something else.
    """
    if isinstance(zips, str):
        return [zipped(text) for text in (_split(zips) if zips.count("zip(") > 1 else [zips])]
    return [zipped(group) for group in (zips if isinstance(zips, list) else [] if zips is None else [zips])]


def zipped(group: Any) -> list[str]:
    """The overrides of one group, each with its values; see `groups`.

    Raises:
        UserError: it is neither a mapping nor such a text.
    """
    if isinstance(group, Mapping):
        return [f"{key}={values(key, value)}" for key, value in group.items()]
    text = str(group).strip().removeprefix("zip")
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    pieces: list[str] = []
    for part in _split(text):
        if _KEY.match(part):
            pieces.append(part.strip())
        elif pieces:  # width=32,64 has its second value here
            pieces[-1] += f",{part}"
        else:
            raise UserError(f"{group} cannot be read; write e.g. {ZIP_EXAMPLE}")
    if not pieces or text.count("(") != text.count(")"):
        raise UserError(f"{group} cannot be read; write e.g. {ZIP_EXAMPLE}")
    pairs = [(override.key, _without_brackets((override.value_text or "").strip())) for override in map(_parse, pieces)]
    keys = [key for key, _ in pairs]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise UserError(f"{twice} is given twice in {group}; leave out one of them")
    if empty := next((part for part, (_, value) in zip(pieces, pairs, strict=True) if not value), None):
        raise UserError(f"{empty} names no value at all, so that the sweep would have no runs")
    signs = [part[: part.index(key)] for part, (key, _) in zip(pieces, pairs, strict=True)]
    return [with_log_range(f"{sign}{key}={text}") for sign, (key, text) in zip(signs, pairs, strict=True)]


def values(key: str, value: Any) -> str:
    """The values of a key in YAML, in the syntax of the command line: a list of values, or such a text.

    Raises:
        UserError: the list is empty.
    """
    if isinstance(value, str):
        return overrides.parse(with_log_range(f"{key}={value}")).value_text or ""
    if isinstance(value, Sequence):
        if not value:
            raise UserError(f"{key}: [] names no value at all, so that the sweep would have no runs")
        return ",".join(map(spell, value))
    return spell(value)


def with_log_range(text: str) -> str:
    """An override whose value may be `logrange(low,high,count)`, with the values of that range.

    They are evenly spaced by their logarithms, both ends included; whole numbers where both ends are, otherwise with
    four significant digits.

    Raises:
        UserError: the range is wrong.
    """
    override = overrides.parse(text)
    value = override.value_text or ""
    if "logrange(" not in value or value.strip()[0] in "'\"":
        return text
    if match := _LOG_RANGE.fullmatch(value):
        low, high, count = (part.strip() for part in match.groups())
        try:
            ends, number = (float(low), float(high)), int(count)
        except ValueError:
            ends, number = (math.nan, math.nan), 0
        if problem := _range_problem(low, high, ends, number):
            raise UserError(f"{text}: {problem}, e.g. optimizer.lr=logrange(0.001,1,7)")
        spaced = _log_spaced(low, high, number)
        if len(set(spaced)) < number:
            raise UserError(
                f"{text} has fewer than {number} different values (whole numbers, or four digits); ask for less"
            )
        return f"{text.removesuffix(value)}{','.join(spaced)}"
    raise UserError(
        f"{text} cannot be read; write logrange(LOW,HIGH,COUNT) alone, e.g. optimizer.lr=logrange(0.001,1,7)"
    )


def _range_problem(low: str, high: str, ends: tuple[float, float], count: int) -> str | None:
    """What is wrong with the three numbers of a `logrange`; None if nothing is."""
    if any(math.isnan(end) for end in ends):
        return f"{low} and {high} are its ends and must be numbers, and COUNT a whole one"
    if wrong := [text for text, end in zip((low, high), ends, strict=True) if not 0 < end < math.inf]:
        return (
            f"both ends must be finite and larger than 0, because the logarithms are evenly spaced; {wrong[0]} is not"
        )
    if ends[0] == ends[1]:
        return f"its ends must differ, and both are {low}"
    if not 2 <= count <= MAX_COUNT:
        return f"COUNT must be from 2 to {MAX_COUNT:,}, and is {count}"
    return None


def _log_spaced(low: str, high: str, count: int) -> list[str]:
    start, ratio = float(low), float(high) / float(low)
    inner = [start * ratio ** (i / (count - 1)) for i in range(1, count - 1)]
    is_whole = all(re.fullmatch(r"\d+", end, re.ASCII) for end in (low, high))
    return [low, *(str(round(x)) if is_whole else str(float(f"{x:.4g}")) for x in inner), high]


def _parse(part: str) -> Override:
    override = overrides.parse(part)
    stripped = override.key.strip()
    return override if stripped == override.key else overrides.parse(f"{stripped}={override.value_text}")


def _without_brackets(text: str) -> str:
    """The content of a list; any other text unchanged."""
    if not (text.startswith("[") and text.endswith("]")):
        return text
    return text if len(_split(text)) > 1 else text[1:-1]


def _split(text: str) -> list[str]:
    """At the commas that stand in no brackets and no quotes."""
    pieces, closing, quote, escaped = [""], list[str](), "", False
    for letter in text:
        if quote:
            quote = "" if letter == quote and not escaped else quote
        elif letter in "'\"" and not escaped:
            quote = letter
        elif letter in _PAIRS:
            closing.append(_PAIRS[letter])
        elif closing and letter == closing[-1]:
            closing.pop()
        elif letter == "," and not closing:
            pieces.append("")
            continue
        escaped = letter == "\\" and not escaped
        pieces[-1] += letter
    return pieces
