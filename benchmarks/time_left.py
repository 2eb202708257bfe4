"""How exact the time is that a sweep's progress bar announces, as announced / actual.

    python benchmarks/time_left.py [--only KIND …] [--repeats N]

Each sweep is a process of its own with a terminal of its own, whose progress bar is read. The clock starts when the
bar first appears and stops when the process ends. Printed is, at a tenth, a quarter and a half of that time, the
median over the repetitions of the announced time left divided by the actual one; a dash where nothing was announced
yet. The goal is a ratio between 0.8 and 1.25 from the first tenth on, in sweeps that take ten seconds or longer.
"""

import argparse
import os
import pty
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

from measuring import ROOT, surroundings

SHARES = (0.1, 0.25, 0.5)
KINDS = {
    "6,000 seeds": ["seed=range(6000)"],
    "648 runs of 81 networks": [
        "seed=range(8)",
        *("model.depth=1,2,3", "model.width=16,32,48,64,80,96,112,128,144", "model.activation=tanh,relu,gelu"),
    ],
    "wide and narrow": ["model.width=8,16,400", "seed=range(400)"],
    "200 runs of 500 epochs": ["seed=range(200)", "trainer.max_epochs=500"],
    "6,000 seeds, 2 workers": ["seed=range(6000)", "hydra.launcher.workers=2"],
    "20,000 seeds, record=table": ["seed=range(20000)", "record=table"],
    "6,000 seeds, halving": ["seed=range(6000)", "halving.rungs=[2,4]"],
}
_LEFT = re.compile(rb"(-|\d+):([-\d]{1,2}):([-\d]{2}) left")


class Watched(NamedTuple):
    """A sweep whose bar was read: seconds since the bar appeared, and what was announced then."""

    announced: list[tuple[float, float | None]]
    wall_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(KINDS), metavar="KIND", default=list(KINDS))
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    hardware = surroundings()["hardware"]
    print(f"{hardware['cpu']}, {hardware['cores']} cores, load {hardware['load']}, announced / actual")
    print(f"{'sweep':<28}{'seconds':>9}" + "".join(f"{f'after {share:.0%}':>18}" for share in SHARES))
    for kind in given.only:
        sweeps = [watch(KINDS[kind]) for _ in range(given.repeats)]
        cells = [_cell([ratio for sweep in sweeps if (ratio := ratio_at(sweep, share))]) for share in SHARES]
        seconds = statistics.median(sweep.wall_s for sweep in sweeps)
        print(f"{kind:<28}{seconds:>9.1f}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def watch(grid: Sequence[str]) -> Watched:
    """Train a sweep in an empty directory and read its progress bar."""
    command = [sys.executable, str(ROOT / "scripts/train.py"), "-m", "name=s", *grid]
    with tempfile.TemporaryDirectory() as directory:
        ours, theirs = pty.openpty()
        environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
        with subprocess.Popen(
            command, cwd=directory, stdout=subprocess.DEVNULL, stderr=theirs, env=environment
        ) as process:
            os.close(theirs)
            announced, appeared, text = [], None, b""
            while chunk := _read(ours):
                now = time.monotonic()
                text = (text + chunk)[-1000:]
                if found := _LEFT.findall(text):
                    appeared = now if appeared is None else appeared
                    announced.append((now - appeared, _seconds(*found[-1])))
                    text = b""
            code = process.wait()
            ended = time.monotonic()
        os.close(ours)
    if code != 0 or appeared is None:
        raise SystemExit(f"{' '.join(command)} ended with {code}, and announced {len(announced)} times")
    return Watched(announced, ended - appeared)


def ratio_at(sweep: Watched, share: float) -> float | None:
    """The announced time left divided by the actual one, by the last announcement before; None where there is none."""
    now = share * sweep.wall_s
    before = [(then, left) for then, left in sweep.announced if then <= now]
    if not before or before[-1][1] is None:
        return None
    then, left = before[-1]
    return max(0.0, left - (now - then)) / (sweep.wall_s - now)


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, 1 << 16)
    except OSError:  # the process has closed its terminal
        return b""


def _seconds(hours: bytes, minutes: bytes, seconds: bytes) -> float | None:
    return None if hours == b"-" else 3600 * int(hours) + 60 * int(minutes) + int(seconds)


def _cell(ratios: Sequence[float]) -> str:
    if not ratios:
        return "-"
    each = f" ({min(ratios):.2f}-{max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.2f}{each}"


if __name__ == "__main__":
    main()
