"""Kills, full disks, broken disks, flipped bits, rivals, signals; each followed by the same command again.

In the end a sweep must hold what an undisturbed one holds, bit for bit, and no finished run may have been touched.

    python tests/faults/campaign.py [--sample] [--seed N] [--only NAME …]
"""

import argparse
import errno
import multiprocessing.resource_tracker  # noqa: F401  # what loky's import would start later
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from forks import Child, Ended, run, warm_up
from inject import Fault
from sweeps import LARGE, SMALL, Broken, compare, finished, picture, untouched

Case = Callable[[Path], None]


class Campaign:
    """What is tried, in how many places, and what held."""

    def __init__(self, top: Path, seed: int, sample: bool) -> None:
        self.top, self.random, self.sample = top, random.Random(seed), sample
        self.expected: dict[str, dict[str, str]] = {}
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
            self.expected[key], self.seconds[key] = picture(place), ended.seconds
            shutil.rmtree(place)
        return self.expected[key]

    def operations(self) -> int:
        """How many operations on files the small sweep makes."""
        place = self._place()
        run(place, SMALL, count=place / "count")
        return int((place / "count").read_text()) + 1

    def attempt(self, name: str, cases: Iterator[tuple[str, Case]]) -> None:
        held = tried = 0
        started = time.monotonic()
        for what, case in cases:
            place = self._place()
            tried += 1
            try:
                case(place)
                held += 1
            except Exception as error:
                self.failures.append(f"{name}, {what}: {type(error).__name__}: {error}"[:600])
            shutil.rmtree(place, ignore_errors=True)
        print(f"{name:<46} {held:>5} of {tried:<5} {time.monotonic() - started:6.0f} s", flush=True)

    def again(self, place: Path, words: list[str]) -> None:
        """The same command must come to the same end, touching nothing that is done."""
        expected = self.undisturbed(words)
        before = finished(place)
        ended = run(place, words)
        if ended.code != 0 or ended.err:
            raise Broken(f"the same command again ended with {ended.code}: {ended.err}")
        untouched(place, before)
        compare(picture(place), expected)

    def _place(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.top))

    # what is tried

    def crash_points(self) -> Iterator[tuple[str, Case]]:
        for torn in (False, True):
            for number in self.few(list(range(self.operations())), 4):

                def case(place: Path, number: int = number, torn: bool = torn) -> None:
                    ended = run(place, SMALL, Fault(number, torn=torn))
                    if ended.code not in (-9, 0):
                        raise Broken(f"ended with {ended.code}: {ended.err}")
                    self.again(place, SMALL)

                yield f"operation {number}{', torn' * torn}", case

    def kills(self) -> Iterator[tuple[str, Case]]:
        words = SMALL if self.sample else LARGE
        self.undisturbed(words)
        for _ in range(3 if self.sample else 100):
            moment = self.random.uniform(0, self.seconds[" ".join(words)])

            def case(place: Path, moment: float = moment) -> None:
                _killed(place, words, moment)
                self.again(place, words)

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

            def case(place: Path, size: int = size) -> None:
                disk = place / "disk"
                with _tmpfs(disk, size):
                    ended = run(disk, SMALL)
                    _one_line(ended, "No space left on device")
                    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                    self.again(disk, SMALL)

            yield f"{size} KiB", case

    def errors(self) -> Iterator[tuple[str, Case]]:
        numbers = list(range(self.operations()))
        for number in self.few(numbers, 2) if self.sample else sorted(self.random.sample(numbers, 60)):
            code = self.random.choice([errno.ENOSPC, errno.EIO, errno.EDQUOT])

            def case(place: Path, number: int = number, code: int = code) -> None:
                _one_line(
                    run(place, SMALL, Fault(number, error=code, torn=True, lasting=number % 2 == 0)), os.strerror(code)
                )
                self.again(place, SMALL)

            yield f"{errno.errorcode[code]} at operation {number}", case

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
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)):
            for step in range(1 if self.sample else 15):
                moment = self.random.uniform(0.1, 0.9) * whole if self.sample else (step + 0.5) / 15 * whole

                def case(place: Path, number: int = number, code: int = code, moment: float = moment) -> None:
                    child = Child(place, SMALL)
                    child.wait_until(moment)
                    child.kill(number)
                    time.sleep(self.random.choice([0, 0.01]))
                    if not child.wait_until(0):
                        child.kill(number)  # an impatient second one
                    ended = child.ended()
                    if ended.code not in (code, 0, -number) or "Traceback" in ended.err or len(ended.lines) > 1:
                        raise Broken(f"ended with {ended.code}: {ended.err}")
                    if ended.code == -number and moment > 0.5:
                        raise Broken("died of the signal itself")
                    self.again(place, SMALL)

                yield f"{signal.Signals(number).name} after {moment:.3f} s", case


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
}
MOUNTS = ("full", "tmpdir")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true", help="some of each, in less than a minute")
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
                print(f"{title:<46} skipped: this user may not mount")
                continue
            campaign.attempt(title, cases(campaign))
    for line in campaign.failures:
        print(f"NOT HELD: {line}")
    return 1 if campaign.failures else 0


def _killed(place: Path, words: list[str], moment: float) -> Ended:
    child = Child(place, words)
    child.wait_until(moment)
    child.kill()
    return child.ended()


def _one_line(ended: Ended, said: str) -> None:
    """One sentence and exit code 1, unless it came through."""
    if ended.code == 0:
        return
    if ended.code != 1 or len(ended.lines) != 1 or said not in ended.err:
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
