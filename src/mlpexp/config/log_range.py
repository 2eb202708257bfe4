"""`key=logrange(0.001,1,7)`: values that are evenly spaced by their logarithms, as the list that Hydra reads."""

import math
import re

from mlpexp.config import overrides
from mlpexp.runtime.errors import UserError

MAX_COUNT = 100_000
_LOG_RANGE = re.compile(r"\s*logrange\(([^,()]+),([^,()]+),([^,()]+)\)\s*", re.ASCII)


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
