"""One series of trials: what is tried, in how many places, and what held."""

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forks import run
from inject import Fault
from sweeps import SMALL, Broken, compare, finished, picture, untouched

Case = Callable[[Path], str | None]
"""Raises `Broken`; says what has really happened, where that is left to chance."""


@dataclass
class Held:
    """What came of the cases of one kind."""

    tried: int = 0
    seconds: float = 0.0
    happened: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @classmethod
    def joined(cls, parts: Sequence["Held"]) -> "Held":
        return cls(
            sum(part.tried for part in parts),
            max(part.seconds for part in parts),
            sum((part.happened for part in parts), Counter()),
            [failure for part in parts for failure in part.failures],
        )


class Campaign:
    """The directories and the undisturbed sweeps to compare with."""

    def __init__(
        self,
        top: Path,
        seed: int,
        sample: bool,
        share: tuple[int, int] = (0, 1),
        texts: Sequence[str] | None = None,
        *,
        verbose: bool = False,
    ) -> None:
        """
        Args:
            share: (i, n): every n-th case from the i-th one on; the others are tried elsewhere.
            texts: only cases whose name contains one of these.
            verbose: print a line for each case that has ended.
        """
        self.texts, self.verbose = list(texts or []), verbose
        self.top, self.random, self.sample, self.share = top, random.Random(f"{seed} {share[0]}"), sample, share
        self.expected: dict[str, dict[str, str]] = {}
        self.said: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def few(self, numbers: list[int], count: int) -> list[int]:
        """All of them, or a sample."""
        return sorted(self.random.sample(numbers, min(count, len(numbers)))) if self.sample else numbers

    def undisturbed(self, words: list[str]) -> dict[str, str]:
        key = " ".join(words)
        if key not in self.expected:
            place = self.place()
            ended = run(place, words)
            if ended.code:
                raise SystemExit(f"the undisturbed sweep failed: {ended.err}")
            self.expected[key], self.said[key], self.seconds[key] = picture(place), ended.err, ended.seconds
            shutil.rmtree(place)
        return self.expected[key]

    def operations(self, words: list[str] = SMALL, *, in_workers: bool = False) -> int:
        """How many operations on files a sweep makes."""
        return run(self.place(), words, Fault(in_workers=in_workers)).operations

    def attempt(self, name: str, cases: Iterator[tuple[str, Case]]) -> Held:
        found = Held()
        first, step = self.share
        started = time.monotonic()
        chosen = ((what, case) for what, case in cases if not self.texts or any(text in what for text in self.texts))
        for number, (what, case) in enumerate(chosen):
            if number % step != first:
                continue
            place, began, failures = self.place(), time.monotonic(), len(found.failures)
            ended = None
            found.tried += 1
            try:
                if ended := case(place):
                    found.happened[ended] += 1
            except Exception as error:
                notes = "\n".join(getattr(error, "__notes__", ()))  # of lives: their steps
                causes = "; ".join(map(repr, getattr(error, "exceptions", ())))
                said = f"{name}, {what}: {type(error).__name__}: {error} {causes}"
                found.failures.append(f"{said[:2000]}\n{notes}")
            shutil.rmtree(place, ignore_errors=True)
            if self.verbose:
                held = "NOT HELD" if len(found.failures) > failures else ended or "held"
                print(f"  {name}: {what}: {held}, {time.monotonic() - began:.0f} s", flush=True)
        found.seconds = time.monotonic() - started
        return found

    def series(self, few: int, many: int) -> list[int]:
        """The lengths of the series of lives drawn at random: together `few` in a sample, else `many`."""
        lives, parts = int(os.environ.get("FAULTS_EXAMPLES", "") or (few if self.sample else many)), self.share[1]
        return [lives // parts + (part < lives % parts) for part in range(min(parts, lives))]

    def again(self, place: Path, words: list[str]) -> None:
        """The same command must come to the same end, touching nothing that is done."""
        expected = self.undisturbed(words)
        before = finished(place)
        ended = run(place, words)
        if ended.code != 0 or ended.err != self.said[" ".join(words)]:  # e.g. that one of many runs learned nothing
            raise Broken.by(ended, "the same command again ")
        untouched(place, before)
        compare(picture(place), expected)

    def place(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.top))

    def few_of(self, choices: list[Any]) -> list[Any]:
        """All of them; in a sample one, unless the cases are named."""
        return [self.random.choice(choices)] if self.sample and not self.texts else choices

    def moments(self, words: list[str], few: int, many: int) -> list[float]:
        self.undisturbed(words)
        whole = self.seconds[" ".join(words)]
        return [self.random.uniform(0.2, 1) * whole for _ in range(few if self.sample else many)]
