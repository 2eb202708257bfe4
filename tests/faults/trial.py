"""One series of trials: what is tried, in how many places, and what held."""

import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from forks import run
from inject import Fault
from sweeps import SMALL, Broken, compare, finished, picture, untouched

Case = Callable[[Path], str | None]
"""Raises `Broken`; says what has really happened, where that is left to chance."""


class Campaign:
    """The directories, the undisturbed sweeps to compare with, what failed."""

    def __init__(self, top: Path, seed: int, sample: bool) -> None:
        self.top, self.random, self.sample = top, random.Random(seed), sample
        self.expected: dict[str, dict[str, str]] = {}
        self.said: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.failures: list[str] = []

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

    def attempt(self, name: str, cases: Iterator[tuple[str, Case]]) -> None:
        held = tried = 0
        happened: Counter[str] = Counter()
        started = time.monotonic()
        for what, case in cases:
            place = self.place()
            tried += 1
            try:
                if ended := case(place):
                    happened[ended] += 1
                held += 1
            except Exception as error:
                notes = "\n".join(getattr(error, "__notes__", ()))  # of lives: their steps
                self.failures.append(f"{name}, {what}: {type(error).__name__}: {error}"[:2000] + f"\n{notes}")
                print(f"NOT HELD: {self.failures[-1]}", flush=True)
            shutil.rmtree(place, ignore_errors=True)
        told = ", ".join(f"{count} {what}" for what, count in happened.most_common())
        print(f"{name:<48} {held:>4} of {tried:<4} {time.monotonic() - started:5.0f} s  {told}", flush=True)

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
        return [self.random.choice(choices)] if self.sample else choices

    def moments(self, words: list[str], few: int, many: int) -> list[float]:
        self.undisturbed(words)
        whole = self.seconds[" ".join(words)]
        return [self.random.uniform(0.2, 1) * whole for _ in range(few if self.sample else many)]
