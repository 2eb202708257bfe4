"""Kills, full disks, broken disks, flipped bits, rivals, signals; each followed by the same command again.

In the end a sweep must hold what an undisturbed one holds, bit for bit, and no finished run may have been touched.

    python tests/faults/campaign.py [--sample] [--seed N] [--only NAME …]
"""

import argparse
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from forks import Child, Ended, run, warm_up
from inject import Fault
from stateful import live
from sweeps import FORKED, LARGE, SMALL, TABLE, Broken, compare, finished, one_writer, picture, untouched

Case = Callable[[Path], str | None]
"""Raises `Broken`; says what has really happened, where that is left to chance."""


class Campaign:
    """What is tried, in how many places, and what held."""

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
            place = self._place()
            ended = run(place, words)
            if ended.code:
                raise SystemExit(f"the undisturbed sweep failed: {ended.err}")
            self.expected[key], self.said[key], self.seconds[key] = picture(place), ended.err, ended.seconds
            shutil.rmtree(place)
        return self.expected[key]

    def operations(self, words: list[str] = SMALL, *, in_workers: bool = False) -> int:
        """How many operations on files a sweep makes."""
        return run(self._place(), words, Fault(in_workers=in_workers)).operations

    def attempt(self, name: str, cases: Iterator[tuple[str, Case]]) -> None:
        held = tried = 0
        happened: Counter[str] = Counter()
        started = time.monotonic()
        for what, case in cases:
            place = self._place()
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
            raise Broken(f"the same command again ended with {ended.code}: {ended.err}")
        untouched(place, before)
        compare(picture(place), expected)

    def _place(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.top))

    # what is tried

    def crash_points(self) -> Iterator[tuple[str, Case]]:
        for words, torn in ((SMALL, False), (SMALL, True), (TABLE, True)):
            numbers = range(self.operations(words))
            for number in self.few(list(numbers), 2):

                def case(place: Path, words: list[str] = words, number: int = number, torn: bool = torn) -> str:
                    ended = run(place, words, Fault(number, torn=torn))
                    if ended.code != (-9 if ended.hits else 0):
                        raise Broken(f"ended with {ended.code}: {ended.err}")
                    self.again(place, words)
                    return "killed" if ended.hits else "came through"

                yield f"operation {number}{', torn' * torn}{' of a table' * (words is TABLE)}", case

    def kills(self) -> Iterator[tuple[str, Case]]:
        words = SMALL if self.sample else LARGE
        self.undisturbed(words)
        for _ in range(2 if self.sample else 100):
            moment = self.random.uniform(0, self.seconds[" ".join(words)])

            def case(place: Path, moment: float = moment) -> str:
                ended = _killed(place, words, moment)
                if ended.code not in (-9, 0):
                    raise Broken(f"ended with {ended.code}: {ended.err}")
                self.again(place, words)
                return "killed" if ended.code else "came through"

            yield f"after {moment:.3f} s", case

    def deep(self) -> Iterator[tuple[str, Case]]:
        for _ in range(1 if self.sample else 20):
            points = [self.random.randrange(8, 150) for _ in range(3)]

            def case(place: Path, points: list[int] = points) -> None:
                for number in points:
                    before = finished(place) if (place / "multirun/s").exists() else {}
                    run(place, SMALL, Fault(number, torn=bool(number % 2)))
                    untouched(place, before)
                self.again(place, SMALL)

            yield f"operations {points}", case

    def elsewhere(self) -> Iterator[tuple[str, Case]]:
        for _ in range(1 if self.sample else 10):
            number = self.random.randrange(8, 150)

            def case(place: Path, number: int = number) -> None:
                with _tmpfs(place / "tmp", 64 << 10), _environment("TMPDIR", str(place / "tmp")):
                    tempfile.tempdir = None
                    run(place, SMALL, Fault(number))
                    self.again(place, SMALL)
                tempfile.tempdir = None

            yield f"operation {number}", case

    def full(self) -> Iterator[tuple[str, Case]]:
        for size in self.few(list(range(8, 400, 8)), 2):

            def case(place: Path, size: int = size) -> str:
                disk = place / "disk"
                with _tmpfs(disk, size):
                    ended = run(disk, SMALL)
                    _one_line(ended, "No space left on device")
                    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                    self.again(disk, SMALL)
                return "full" if ended.hits else "had room"

            yield f"{size} KiB", case

    def errors(self) -> Iterator[tuple[str, Case]]:
        for words, in_workers in ((SMALL, False), (TABLE, False), (FORKED, True)):
            numbers = list(range(self.operations(words, in_workers=in_workers)))
            if in_workers and not self.sample:
                numbers = sorted(self.random.sample(numbers, 60))
            for number in self.few(numbers, 1):
                code = self.random.choice([errno.ENOSPC, errno.EIO, errno.EDQUOT])
                fault = Fault(number, error=code, torn=True, lasting=number % 2 == 0, in_workers=in_workers)

                def case(place: Path, words: list[str] = words, fault: Fault = fault) -> str:
                    ended = run(place, words, fault)
                    _one_line(ended, os.strerror(fault.error or 0))
                    self.again(place, words)
                    return "hit" if ended.hits else "never met"

                where = " of a worker" if in_workers else " of a table" if words is TABLE else ""
                yield f"{errno.errorcode[code]} at operation {number}{where}", case

    def flips(self) -> Iterator[tuple[str, Case]]:
        whole = self._place()
        run(whole, SMALL)
        names = sorted(
            str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file() and path.stat().st_size
        )
        first = next(name.split("/")[2] for name in names if name.endswith(".csv") and name.count("/") > 2)
        kinds = [name for name in names if name.count("/") < 3 or name.split("/")[2] == first]
        for name in self.random.sample(kinds, 4) if self.sample else kinds * 5:
            bit = self.random.randrange(8 * (whole / name).stat().st_size)

            def case(place: Path, name: str = name, bit: int = bit) -> None:
                shutil.copytree(whole, place, dirs_exist_ok=True)
                content = bytearray((place / name).read_bytes())
                content[bit // 8] ^= 1 << bit % 8
                (place / name).write_bytes(content)
                if name.endswith("sweep.json"):  # it says whether this is the same study: nobody may guess that
                    ended = run(place, SMALL)
                    if ended.code != 2 or len(ended.lines) != 1 or "move it away" not in ended.err:
                        raise Broken(f"ended with {ended.code}: {ended.err}")
                    (place / name).unlink()
                self.again(place, SMALL)

            yield f"{name}, bit {bit}", case
        shutil.rmtree(whole)

    def rivals(self) -> Iterator[tuple[str, Case]]:
        for _ in range(1 if self.sample else 10):

            def case(place: Path) -> None:
                ends = [child.ended() for child in [Child(place, SMALL) for _ in range(4)]]
                if not any(end.code == 0 for end in ends):
                    raise Broken(f"none came through: {[end.err for end in ends]}")
                for end in ends:
                    if end.code != 0 and not (end.code == 2 and "is in use by pid" in end.err and len(end.lines) == 1):
                        raise Broken(f"ended with {end.code}: {end.err}")
                self.again(place, SMALL)

            yield "at once", case

    def signals(self) -> Iterator[tuple[str, Case]]:
        self.undisturbed(SMALL)
        whole = self.seconds[" ".join(SMALL)]
        for number in CODES:
            for step in range(1 if self.sample else 15):
                moment = self.random.uniform(0.1, 0.9) * whole if self.sample else step / 14 * whole

                def case(place: Path, number: int = number, moment: float = moment) -> str:
                    child = Child(place, SMALL)
                    child.wait_until(moment)
                    defenceless = not child.is_armed  # Python itself is still starting
                    child.kill(number)
                    time.sleep(self.random.choice([0, 0.01]))
                    if not child.wait_until(0):
                        child.kill(number)  # an impatient second one
                    told = _in_order(child.ended(), number, defenceless=defenceless)
                    self.again(place, SMALL)
                    return told

                yield f"{signal.Signals(number).name} after {moment:.3f} s", case

    def conductor(self) -> Iterator[tuple[str, Case]]:
        """kill -9 of the main process alone: its workers end, and until they have, nobody else writes."""
        for moment in self._moments(FORKED, 2, 40):

            def case(place: Path, moment: float = moment) -> str:
                record = place.parent / f"{place.name}.record"
                child = Child(place, FORKED, record=record)
                child.wait_until(moment)
                workers = child.workers()
                child.kill()
                killed = child.ended()
                again = Child(place, FORKED, record=record)  # at once, while they may still be at work
                time.sleep(0.3)
                deadline = time.monotonic() + ORPHANS_S
                while child.workers() and time.monotonic() < deadline:
                    time.sleep(0.05)
                if left := child.workers():
                    raise Broken(f"after {ORPHANS_S} s workers are left: {left}")
                second = again.ended()
                if second.code != 0 or second.err:
                    raise Broken(f"the second start ended with {second.code}: {second.err}")
                one_writer(record)
                self.again(place, FORKED)
                return f"killed, {len(workers)} workers lived" if killed.code else "came through"

            yield f"after {moment:.3f} s", case

    def worker(self) -> Iterator[tuple[str, Case]]:
        """A worker is killed: its stack is trained by another one, and the sweep comes through."""
        count = self.operations(FORKED, in_workers=True)
        numbers = [self.random.randrange(count) for _ in range(1 if self.sample else 40)]
        for number in numbers:

            def at_operation(place: Path, number: int = number) -> str:
                record = place.parent / f"{place.name}.record"
                ended = run(place, FORKED, Fault(number, torn=number % 2 == 0, in_workers=True), record)
                _came_through(ended)
                one_writer(record)
                self.again(place, FORKED)
                return "killed" if ended.hits else "never met"

            yield f"at its operation {number}", at_operation
        for moment in self._moments(FORKED, 0, 20):

            def at_moment(place: Path, moment: float = moment) -> str:
                child = Child(place, FORKED)
                child.wait_until(moment)
                workers = child.workers()
                if workers:
                    with suppress(ProcessLookupError):
                        os.kill(self.random.choice(workers), signal.SIGKILL)
                _came_through(child.ended())
                self.again(place, FORKED)
                return "killed" if workers else "there was none"

            yield f"after {moment:.3f} s", at_moment

    def group(self) -> Iterator[tuple[str, Case]]:
        """A signal to the main process and its workers at once, as a terminal or a batch system sends it."""
        for number in (*CODES, signal.SIGKILL):
            for moment in self._moments(FORKED, 1, 12):

                def case(place: Path, number: int = number, moment: float = moment) -> str:
                    child = Child(place, FORKED)
                    child.wait_until(moment)
                    defenceless = not child.is_armed
                    child.kill_group(number)
                    ended = child.ended()
                    deadline = time.monotonic() + ORPHANS_S
                    while (left := child.workers()) and time.monotonic() < deadline:
                        time.sleep(0.02)
                    if left:
                        raise Broken(f"after {ORPHANS_S} s workers are left: {left}")
                    if number == signal.SIGKILL:
                        told = "killed" if ended.code else "came through"
                    else:
                        told = _in_order(ended, number, defenceless=defenceless)
                    self.again(place, FORKED)
                    return told

                yield f"{signal.Signals(number).name} after {moment:.3f} s", case

    def silence(self) -> Iterator[tuple[str, Case]]:
        """Whoever reads the output leaves, at once or after some bytes, or never was there: the training goes on."""
        for words in self.few_of([SMALL, FORKED]):
            for left in self.few_of([0, 10, 100, None]):
                for numbers in self.few_of([(1,), (1, 2)]):

                    def case(
                        place: Path, words: list[str] = words, left: int | None = left, numbers: tuple = numbers
                    ) -> None:
                        reader, writer = os.pipe()
                        out = None if left is None else writer
                        child = Child(place, words, out=dict.fromkeys(numbers, out))
                        os.close(writer)
                        os.read(reader, left or 0)
                        os.close(reader)
                        ended = child.ended()
                        if ended.code != 0 or ended.err:
                            raise Broken(f"ended with {ended.code}: {ended.err}")
                        compare(picture(place), self.undisturbed(words))
                        self.again(place, words)

                    yield f"{numbers}, after {left} bytes, {words[-1]}", case

    def lives(self) -> Iterator[tuple[str, Case]]:
        examples = int(os.environ.get("FAULTS_EXAMPLES", "") or (3 if self.sample else 60))

        def case(place: Path) -> str:
            return f"series of {examples} lives, {live(place, self.random.randrange(2**31), examples)} commands"

        yield f"{examples} of them", case

    def few_of(self, choices: list[Any]) -> list[Any]:
        return [self.random.choice(choices)] if self.sample else choices

    def _moments(self, words: list[str], few: int, many: int) -> list[float]:
        self.undisturbed(words)
        whole = self.seconds[" ".join(words)]
        return [self.random.uniform(0.2, 1) * whole for _ in range(few if self.sample else many)]


CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
ORPHANS_S = 5.0
TRIED = {
    "crash": ("killed at each operation on files", Campaign.crash_points),
    "kill": ("kill -9 at random moments", Campaign.kills),
    "deep": ("killed again while carrying on, three deep", Campaign.deep),
    "tmpdir": ("killed with TMPDIR on another file system", Campaign.elsewhere),
    "full": ("disk full, in steps of 8 KiB", Campaign.full),
    "errors": ("EIO, ENOSPC, EDQUOT from one operation on", Campaign.errors),
    "flips": ("a bit flipped in each kind of file", Campaign.flips),
    "rivals": ("four processes in one directory", Campaign.rivals),
    "signals": ("SIGINT, SIGTERM, SIGHUP, twice, at each phase", Campaign.signals),
    "conductor": ("main process killed while workers live", Campaign.conductor),
    "worker": ("a worker killed while the main process lives", Campaign.worker),
    "silence": ("nobody reads the output any more", Campaign.silence),
    "lives": ("all of it by turns, drawn at random", Campaign.lives),
    "group": ("signals to main process and workers", Campaign.group),
}
MOUNTS = ("full", "tmpdir")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true", help="some of each")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31), help="of what is drawn (default: random)")
    parser.add_argument("--only", nargs="+", choices=TRIED, default=list(TRIED), help="some kinds only")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    warm_up()
    with tempfile.TemporaryDirectory() as top:
        campaign = Campaign(Path(top), given.seed, given.sample)
        for name in given.only:
            title, cases = TRIED[name]
            if name in MOUNTS and not _can_mount(Path(top)):
                print(f"{title:<48} skipped: this user may not mount")
                continue
            campaign.attempt(title, cases(campaign))
    return 1 if campaign.failures else 0


def _killed(place: Path, words: list[str], moment: float) -> Ended:
    child = Child(place, words)
    child.wait_until(moment)
    child.kill()
    return child.ended()


def _one_line(ended: Ended, said: str) -> None:
    """One sentence and exit code 1; only where nothing was hit it may have come through."""
    if ended.code == 0 and not ended.hits and not ended.err:
        return
    if ended.code != 1 or len(ended.lines) != 1 or said not in ended.err:
        raise Broken(f"{ended.hits} hits, first {ended.hit}; ended with {ended.code}: {ended.err}")


def _in_order(ended: Ended, number: int, *, defenceless: bool) -> str:
    """After a signal: one line and the right exit code, or it had come through.

    Args:
        defenceless: no handler was there yet, so that the signal itself may have killed it.
    """
    if ended.code == -number and defenceless:
        return "at once"
    if ended.code == 0 and not ended.err:
        return "came through"
    if ended.code != CODES[signal.Signals(number)] or len(ended.lines) != 1 or "stopped by SIG" not in ended.err:
        raise Broken(f"ended with {ended.code}: {ended.err}")
    return "in order"


def _came_through(ended: Ended) -> None:
    """All runs are done, with no more than a line about each lost worker."""
    if ended.code != 0 or any("was lost" not in line for line in ended.lines):
        raise Broken(f"ended with {ended.code}: {ended.err}")


@contextmanager
def _tmpfs(directory: Path, kib: int) -> Iterator[None]:
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(directory)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _can_mount(top: Path) -> bool:
    try:
        with _tmpfs(top / "probe", 64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        (top / "probe").rmdir()


if __name__ == "__main__":
    sys.exit(main())
