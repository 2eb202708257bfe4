"""Kills, full disks, broken disks, flipped bits, rivals, signals; each followed by the same command again.

In the end a sweep must hold what an undisturbed one holds, bit for bit, and no finished run may have been touched.

    python tests/faults/campaign.py [--sample] [--seed N] [--only NAME …] [--cases TEXT …] [--jobs N] [--verbose]

All of it takes about an hour on two quiet processors, and the longest kind of it, `again`, half of that (estimated
from a part of it).
"""

import argparse
import multiprocessing
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

import disks
import hostile_files
import housekeeping
import processes
import pruned_searches
import searches
from forks import warm_up
from trial import Campaign, Held

from mlpexp.runtime.portable import available_cores

TRIED = {
    "crash": ("killed at each operation on files", disks.crash_points),
    "kill": ("kill -9 at random moments", processes.kills),
    "further": ("killed while it is trained further", disks.further),
    "tidied": ("rm, compact and restore killed, or the disk full", housekeeping.disturbed),
    "deep": ("killed again while carrying on, three deep", disks.deep),
    "tmpdir": ("killed with TMPDIR on another file system", disks.elsewhere),
    "full": ("disk full, in steps of 8 KiB", disks.full),
    "errors": ("EIO, ENOSPC, EDQUOT from one operation on", disks.errors),
    "flips": ("a bit flipped in each kind of file", disks.flips),
    "special": ("a FIFO, socket, device, directory for a file", hostile_files.special),
    "links": ("a link for each file and directory", hostile_files.links),
    "snapshots": ("a copy by hard links keeps its content", hostile_files.snapshots),
    "shifted": ("names that shift with the grid", hostile_files.shifted),
    "resealed": ("wrong content with a right checksum", hostile_files.resealed),
    "rivals": ("four processes in one directory", processes.rivals),
    "signals": ("SIGINT, SIGTERM, SIGHUP, twice, at each phase", processes.signals),
    "conductor": ("main process killed while workers live", processes.conductor),
    "worker": ("a worker killed while the main process lives", processes.worker),
    "states": ("stacks stopped in the middle, twice", processes.states),
    "silence": ("nobody reads the output any more", processes.silence),
    "lives": ("all of it by turns, drawn at random", processes.lives),
    "searches": ("searches by turns, drawn at random", searches.lives),
    "pruned": ("searches with a pruner killed, and started again", pruned_searches.killed),
    "again": ("searches with a pruner disturbed until they end", pruned_searches.disturbed_until_it_ends),
    "group": ("signals to main process and workers", processes.group),
}
MOUNTS = ("full", "tmpdir")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true", help="some of each")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31), help="of what is drawn (default: random)")
    parser.add_argument("--only", nargs="+", choices=TRIED, default=list(TRIED), help="some kinds only")
    parser.add_argument("--cases", nargs="+", metavar="TEXT", help="only cases whose name contains one of these texts")
    parser.add_argument("--verbose", action="store_true", help="a line for each case that has ended, with its time")
    parser.add_argument("--jobs", type=int, default=available_cores(), help="processes (default: one per processor)")
    given = parser.parse_args()
    print(f"seed {given.seed}, {given.jobs} processes", flush=True)
    warm_up()
    with tempfile.TemporaryDirectory() as top:
        kinds = [name for name in given.only if name not in MOUNTS or disks.can_mount(Path(top))]
        for name in given.only:
            if name not in kinds:
                print(f"{TRIED[name][0]:<48} skipped: this user may not mount")
        parts = [
            Campaign(Path(top), given.seed, given.sample, (job, given.jobs), given.cases, verbose=given.verbose)
            for job in range(given.jobs)
        ]
        failures = 0
        for name, held in _tried(parts, kinds):
            for failure in held.failures:
                print(f"NOT HELD: {failure}", flush=True)
            happened = ", ".join(f"{count} {what}" for what, count in held.happened.most_common())
            count = f"{held.tried - len(held.failures):>4} of {held.tried:<4}"
            print(f"{TRIED[name][0]:<48} {count} {held.seconds:5.0f} s  {happened}", flush=True)
            failures += len(held.failures)
    return 1 if failures else 0


def _tried(parts: Sequence[Campaign], kinds: Sequence[str]) -> Iterator[tuple[str, Held]]:
    """Each kind with what all parts of the campaign found, once the last of them has ended it.

    Raises:
        SystemExit: a part has ended early; it has printed why.
    """
    fork = multiprocessing.get_context("fork")  # what `warm_up` has imported is there
    ends: dict[Connection, Campaign] = {}
    for part in parts:
        here, there = fork.Pipe(duplex=False)
        fork.Process(target=_run_part, args=(part, kinds, there), daemon=False).start()
        there.close()
        ends[here] = part
    found: dict[str, list[Held]] = defaultdict(list)
    while ends:
        for end in wait(list(ends)):
            try:
                name, held = end.recv()  # type: ignore[union-attr]
            except EOFError:
                del ends[end]  # type: ignore[arg-type]
                continue
            found[name].append(held)
            if len(found[name]) == len(parts):
                yield name, Held.joined(found[name])
    if missing := [name for name in kinds if len(found[name]) < len(parts)]:
        raise SystemExit(f"not tried to the end: {', '.join(missing)}")


def _run_part(part: Campaign, kinds: Sequence[str], end: Connection) -> None:
    for name in kinds:
        title, cases = TRIED[name]
        end.send((name, part.attempt(title, cases(part))))


if __name__ == "__main__":
    sys.exit(main())
