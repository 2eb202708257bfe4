"""Kills, full disks, broken disks, flipped bits, rivals, signals; each followed by the same command again.

In the end a sweep must hold what an undisturbed one holds, bit for bit, and no finished run may have been touched.

    python tests/faults/campaign.py [--sample] [--seed N] [--only NAME …]
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

import disks
import hostile_files
import processes
import searches
from forks import warm_up
from trial import Campaign

TRIED = {
    "crash": ("killed at each operation on files", disks.crash_points),
    "kill": ("kill -9 at random moments", processes.kills),
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
    "group": ("signals to main process and workers", processes.group),
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
            if name in MOUNTS and not disks.can_mount(Path(top)):
                print(f"{title:<48} skipped: this user may not mount")
                continue
            campaign.attempt(title, cases(campaign))
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main())
