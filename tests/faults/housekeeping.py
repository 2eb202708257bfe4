"""Trials of `sweep.py`: killed, or the disk full, in the middle of rm, compact and restore; then the same again."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forks import Ended, run
from inject import Fault
from sweeps import SMALL, Broken, compare, finished, untouched
from trial import Campaign, Case

from mlpexp import load_results
from mlpexp.store import file_names, run_table, run_weights

SWEEP = Path("multirun/s")
# what was done before, and what is disturbed
ACTIONS: dict[str, tuple[list[list[str]], list[str]]] = {
    "rm": ([], ["rm", "width=4*", "--yes"]),
    "compact": ([], ["compact", "--yes"]),
    "restore": ([["compact", "--yes"]], ["restore", "--yes"]),
    "rm of a table": ([["compact", "--yes"]], ["rm", "width=4*", "--yes"]),
}


def disturbed(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    trained = campaign.place()
    if (ended := run(trained, SMALL)).code:
        raise Broken.by(ended)
    for name, (before, action) in ACTIONS.items():
        start, whole = campaign.place(), campaign.place()
        shutil.copytree(trained, start, dirs_exist_ok=True)
        for earlier in before:
            _tidied(start, earlier)
        shutil.copytree(start, whole, dirs_exist_ok=True)
        operations = _tidied(whole, action).operations
        expected = contents(whole / SWEEP)
        for number in campaign.few(list(range(operations)), 1):
            is_kill = number % 3 > 0
            fault = Fault(number, torn=True, error=None if is_kill else errno.ENOSPC, lasting=not is_kill)

            def case(
                place: Path,
                start: Path = start,
                action: list[str] = action,
                fault: Fault = fault,
                expected: dict[str, bytes] = expected,
            ) -> str:
                shutil.copytree(start, place, dirs_exist_ok=True)
                ended = run(place, [os.fspath(SWEEP), *action], fault, script="sweep.py")
                if fault.error is None and ended.code != (-9 if ended.hits else 0):
                    raise Broken.by(ended)
                if fault.error is not None and (ended.code, len(ended.lines)) not in ((1, 1), (0, 0)):
                    raise Broken.by(ended)
                _tidied(place, action)
                compare(_as_text(contents(place / SWEEP)), _as_text(expected))
                before = finished(place)
                if (again := run(place, SMALL)).code:
                    raise Broken.by(again, "training again ")
                untouched(place, before)
                if _rows(place) != _rows(trained):
                    raise Broken("results.csv differs after training again")
                return "killed" if ended.code < 0 else "failed" if ended.code else "came through"

            yield f"{name} at operation {number}", case


def contents(sweep: Path) -> dict[str, bytes]:
    """All files below a sweep's directory; of the table the lines by run, with the weights, not their positions."""
    found = {}
    for path in sweep.rglob("*"):
        if path.is_file() and path.name not in (file_names.LOCK, file_names.TABLE, file_names.WEIGHTS):
            found[path.relative_to(sweep).as_posix()] = path.read_bytes()
    for name, files in run_table.read(sweep):
        if f"{name} in the table" in found:
            raise Broken(f"{name} is in the table twice")
        found[f"{name} in the table"] = repr({**files, file_names.WEIGHTS: ""}).encode()
        if kept := run_weights.checkpoint_of(sweep / name):
            found[f"weights of {name}"] = run_weights.read(sweep / name / kept) or b""
    return found


def _tidied(place: Path, action: list[str]) -> Ended:
    ended = run(place, [os.fspath(SWEEP), *action], Fault(), script="sweep.py")
    if ended.code and "there is no run" not in ended.err:  # that is so where it was killed at its end
        raise Broken.by(ended, f"{' '.join(action)} ")
    return ended


def _rows(place: Path) -> list[dict[str, Any]]:
    return [{**row, "seconds": 0} for row in load_results(place / SWEEP)]


def _as_text(found: dict[str, bytes]) -> dict[str, str]:
    return {name: content.hex() for name, content in found.items()}
