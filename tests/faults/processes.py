"""Trials of processes: killed, signalled, rivals of each other, left by whoever reads them."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from forks import Child, Ended, run
from inject import Fault
from stateful import live
from sweeps import FORKED, LARGE, SAVED, SMALL, Broken, compare, one_writer, picture
from trial import Campaign, Case

from mlpexp.store import file_names
from mlpexp.training import train_stack

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
ORPHANS_S = 5.0


def kills(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    words = SMALL if campaign.sample else LARGE
    campaign.undisturbed(words)
    for _ in range(2 if campaign.sample else 100):
        moment = campaign.random.uniform(0, campaign.seconds[" ".join(words)])

        def case(place: Path, moment: float = moment) -> str:
            ended = _killed(place, words, moment)
            if ended.code not in (-9, 0):
                raise Broken.by(ended)
            campaign.again(place, words)
            return "killed" if ended.code else "came through"

        yield f"after {moment:.3f} s", case


def rivals(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    for _ in range(1 if campaign.sample else 10):

        def case(place: Path) -> None:
            ends = [child.ended() for child in [Child(place, SMALL) for _ in range(4)]]
            if not any(end.code == 0 for end in ends):
                raise Broken(f"none came through: {[end.err for end in ends]}")
            for end in ends:
                if end.code != 0 and not (end.code == 2 and "is in use by pid" in end.err and len(end.lines) == 1):
                    raise Broken.by(end)
            campaign.again(place, SMALL)

        yield "at once", case


def signals(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    campaign.undisturbed(SMALL)
    whole = campaign.seconds[" ".join(SMALL)]
    for number in CODES:
        for step in range(1 if campaign.sample else 15):
            moment = campaign.random.uniform(0.1, 0.9) * whole if campaign.sample else step / 14 * whole

            def case(place: Path, number: int = number, moment: float = moment) -> str:
                child = Child(place, SMALL)
                child.wait_until(moment)
                defenceless = not child.is_armed  # Python itself is still starting
                child.kill(number)
                time.sleep(campaign.random.choice([0, 0.01]))
                if not child.wait_until(0):
                    child.kill(number)  # an impatient second one
                told = _in_order(child.ended(), number, defenceless=defenceless)
                campaign.again(place, SMALL)
                return told

            yield f"{signal.Signals(number).name} after {moment:.3f} s", case


def conductor(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    """kill -9 of the main process alone: its workers end, and until they have, nobody else writes."""
    for moment in campaign.moments(FORKED, 2, 40):

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
                raise Broken.by(second, "the second start ")
            one_writer(record)
            campaign.again(place, FORKED)
            return f"killed, {len(workers)} workers lived" if killed.code else "came through"

        yield f"after {moment:.3f} s", case


def worker(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    """A worker is killed: its stack is trained by another one, and the sweep comes through."""
    count = campaign.operations(FORKED, in_workers=True)
    numbers = [campaign.random.randrange(count) for _ in range(1 if campaign.sample else 40)]
    for number in numbers:

        def at_operation(place: Path, number: int = number) -> str:
            record = place.parent / f"{place.name}.record"
            ended = run(place, FORKED, Fault(number, torn=number % 2 == 0, in_workers=True), record)
            _came_through(ended)
            one_writer(record)
            campaign.again(place, FORKED)
            return "killed" if ended.hits else "never met"

        yield f"at its operation {number}", at_operation
    for moment in campaign.moments(FORKED, 0, 20):

        def at_moment(place: Path, moment: float = moment) -> str:
            child = Child(place, FORKED)
            child.wait_until(moment)
            workers = child.workers()
            if workers:
                with suppress(ProcessLookupError):
                    os.kill(campaign.random.choice(workers), signal.SIGKILL)
            _came_through(child.ended())
            campaign.again(place, FORKED)
            return "killed" if workers else "there was none"

        yield f"after {moment:.3f} s", at_moment


def group(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    """A signal to the main process and its workers at once, as a terminal or a batch system sends it."""
    for number in (*CODES, signal.SIGKILL):
        for moment in campaign.moments(FORKED, 1, 12):

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
                campaign.again(place, FORKED)
                return told

            yield f"{signal.Signals(number).name} after {moment:.3f} s", case


def states(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    """Stacks that are stopped twice while they train: each start continues from the state that the one before saved."""
    train_stack.SAVE_SHARE = 0  # save after each epoch, however long that takes; the children inherit it
    fork = ["hydra.launcher.backend=fork", "hydra.launcher.workers=2"]
    halving = ["halving.rungs=[10,25]", "halving.factor=2"]
    for words in campaign.few_of([[*SAVED, "hydra.launcher.backend=process"], [*SAVED, *fork], [*SAVED, *halving]]):
        for number in campaign.few_of([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]):
            for moment in campaign.moments(words, 1, 6):

                def case(place: Path, words: list[str] = words, number: int = number, moment: float = moment) -> str:
                    found = 0
                    for _ in range(2):
                        child = Child(place, words)
                        child.wait_until(moment)
                        child.kill(number)
                        child.ended()
                        time.sleep(ORPHANS_S if child.workers() else 0)
                        found += any((place / "multirun/s" / file_names.STATES).glob("*.state"))
                    campaign.again(place, words)
                    return f"continued {found} times"

                yield f"{signal.Signals(number).name} after {moment:.3f} s, {words[-1]}", case


def silence(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    """Output that cannot be written does not stop training.

    The reader leaves at once or after some bytes, the stream is closed from the start, the device is full, or the
    encoding lacks characters.
    """
    for words in campaign.few_of([SMALL, FORKED]):
        for left in campaign.few_of([0, 10, 100, None]):
            for numbers in campaign.few_of([(1,), (1, 2)]):

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
                        raise Broken.by(ended)
                    compare(picture(place), campaign.undisturbed(words))
                    campaign.again(place, words)

                yield f"{numbers}, after {left} bytes, {words[-1]}", case

        for numbers in campaign.few_of([(1,), (1, 2)]):

            def full(place: Path, words: list[str] = words, numbers: tuple = numbers) -> None:
                with Path("/dev/full").open("w") as device:
                    ended = Child(place, words, out=dict.fromkeys(numbers, device.fileno())).ended()
                if ended.code != 0 or any("standard output was cut" not in line for line in ended.lines):
                    raise Broken.by(ended)
                compare(picture(place), campaign.undisturbed(words))
                campaign.again(place, words)

            yield f"{numbers} on a full device, {words[-1]}", full

        def plain(place: Path, words: list[str] = words) -> None:
            with tempfile.TemporaryFile() as said:
                ended = Child(place, words, out={1: said.fileno()}, encoding="ascii").ended()
                said.seek(0)
                text = said.read()
            if ended.code != 0 or ended.err or not text.isascii() or b"Next:" not in text:
                raise Broken.by(ended, f"{text!r} ")
            compare(picture(place), campaign.undisturbed(words))

        yield f"ASCII, {words[-1]}", plain


def lives(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    for examples in campaign.series(2, 60):

        def case(place: Path, examples: int = examples) -> str:
            return f"series of {examples} lives, {live(place, campaign.random.randrange(2**31), examples)} commands"

        yield f"{examples} of them", case


def _killed(place: Path, words: list[str], moment: float) -> Ended:
    child = Child(place, words)
    child.wait_until(moment)
    child.kill()
    return child.ended()


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
        raise Broken.by(ended)
    return "in order"


def _came_through(ended: Ended) -> None:
    """All runs are done, with no more than a line about each lost worker."""
    if ended.code != 0 or any("was lost" not in line for line in ended.lines):
        raise Broken.by(ended)
