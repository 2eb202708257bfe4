"""Trials of files: killed at an operation, the disk full or broken, bits flipped."""

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forks import Ended, run
from inject import Fault
from sweeps import FORKED, FURTHER, SMALL, TABLE, Broken, compare, finished, picture, untouched
from trial import Campaign, Case


def crash_points(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    for words, torn in ((SMALL, False), (SMALL, True), (TABLE, True)):
        numbers = range(campaign.operations(words))
        for number in campaign.few(list(numbers), 1):

            def case(place: Path, words: list[str] = words, number: int = number, torn: bool = torn) -> str:
                ended = run(place, words, Fault(number, torn=torn))
                if ended.code != (-9 if ended.hits else 0):
                    raise Broken.by(ended)
                campaign.again(place, words)
                return "killed" if ended.hits else "came through"

            yield f"operation {number}{', torn' * torn}{' of a table' * (words is TABLE)}", case


def further(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    """A finished sweep is trained further, and killed meanwhile: then it equals one that was as long at once."""

    def shorter(place: Path) -> None:
        if (ended := run(place, SMALL)).code:
            raise Broken.by(ended, "the shorter sweep ")

    place = campaign.place()
    shorter(place)
    numbers = campaign.random.sample(range(run(place, FURTHER, Fault()).operations), 2 if campaign.sample else 60)
    for number in sorted(numbers):

        def case(place: Path, number: int = number) -> str:
            shorter(place)
            ended = run(place, FURTHER, Fault(number, torn=number % 2 == 0))
            if ended.code != (-9 if ended.hits else 0):
                raise Broken.by(ended)
            again = run(place, FURTHER)
            expected = campaign.undisturbed(FURTHER)
            if again.code != 0 or again.err != campaign.said[" ".join(FURTHER)]:
                raise Broken.by(again, "the same command again ")
            compare(picture(place), expected)
            campaign.again(place, FURTHER)
            return "killed" if ended.hits else "came through"

        yield f"operation {number}", case


def deep(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    for _ in range(1 if campaign.sample else 20):
        points = [campaign.random.randrange(8, 150) for _ in range(3)]

        def case(place: Path, points: list[int] = points) -> None:
            for number in points:
                before = finished(place) if (place / "multirun/s").exists() else {}
                run(place, SMALL, Fault(number, torn=bool(number % 2)))
                untouched(place, before)
            campaign.again(place, SMALL)

        yield f"operations {points}", case


def elsewhere(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    for _ in range(1 if campaign.sample else 10):
        number = campaign.random.randrange(8, 150)

        def case(place: Path, number: int = number) -> None:
            with _tmpfs(place / "tmp", 64 << 10), _environment("TMPDIR", str(place / "tmp")):
                tempfile.tempdir = None
                run(place, SMALL, Fault(number))
                campaign.again(place, SMALL)
            tempfile.tempdir = None

        yield f"operation {number}", case


def full(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    for size in campaign.few(list(range(8, 400, 8)), 2):

        def case(place: Path, size: int = size) -> str:
            disk = place / "disk"
            with _tmpfs(disk, size):
                ended = run(disk, SMALL)
                _one_line(ended, "No space left on device")
                subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                campaign.again(disk, SMALL)
            return "full" if ended.hits else "had room"

        yield f"{size} KiB", case


def errors(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    for words, in_workers in ((SMALL, False), (TABLE, False), (FORKED, True)):
        numbers = list(range(campaign.operations(words, in_workers=in_workers)))
        if in_workers and not campaign.sample:
            numbers = sorted(campaign.random.sample(numbers, 60))
        for number in campaign.few(numbers, 1):
            code = campaign.random.choice([errno.ENOSPC, errno.EIO, errno.EDQUOT])
            fault = Fault(number, error=code, torn=True, lasting=number % 2 == 0, in_workers=in_workers)

            def case(place: Path, words: list[str] = words, fault: Fault = fault) -> str:
                ended = run(place, words, fault)
                _one_line(ended, os.strerror(fault.error or 0))
                campaign.again(place, words)
                return "hit" if ended.hits else "never met"

            where = " of a worker" if in_workers else " of a table" if words is TABLE else ""
            yield f"{errno.errorcode[code]} at operation {number}{where}", case


def flips(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    whole = campaign.place()
    run(whole, SMALL)
    names = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file() and path.stat().st_size)
    first = next(name.split("/")[2] for name in names if name.endswith(".csv") and name.count("/") > 2)
    kinds = [name for name in names if name.count("/") < 3 or name.split("/")[2] == first]
    for name in campaign.random.sample(kinds, 4) if campaign.sample else kinds * 5:
        bit = campaign.random.randrange(8 * (whole / name).stat().st_size)

        def case(place: Path, name: str = name, bit: int = bit) -> None:
            shutil.copytree(whole, place, dirs_exist_ok=True)
            content = bytearray((place / name).read_bytes())
            content[bit // 8] ^= 1 << bit % 8
            (place / name).write_bytes(content)
            if name.endswith("sweep.json"):  # it says whether this is the same study: nobody may guess that
                ended = run(place, SMALL)
                if ended.code != 2 or len(ended.lines) != 1 or "move it away" not in ended.err:
                    raise Broken.by(ended)
                (place / name).unlink()
            campaign.again(place, SMALL)

        yield f"{name}, bit {bit}", case
    shutil.rmtree(whole)


def can_mount(top: Path) -> bool:
    try:
        with _tmpfs(top / "probe", 64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        (top / "probe").rmdir()


def _one_line(ended: Ended, said: str) -> None:
    """One sentence and exit code 1; only where nothing was hit it may have come through."""
    if ended.code == 0 and not ended.hits and not ended.err:
        return
    if ended.code != 1 or len(ended.lines) != 1 or said not in ended.err:
        raise Broken.by(ended, f"{ended.hits} hits, first {ended.hit}; ")


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
