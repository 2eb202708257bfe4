"""How many CPU threads a stack gets: all cores of an idle machine, fewer where others work.

A stack waits for its slowest thread in every step, so that one busy neighbour costs it more than half.
"""

import os
import time
from pathlib import Path

SAMPLE_S = 0.05
BUSY = 0.3  # of one core, by other processes


def choose(wanted: int | None) -> int:
    """`wanted`, or as many as there are cores that nobody else uses just now; at least one."""
    if wanted is not None:
        return wanted
    cores = len(os.sched_getaffinity(0))
    try:
        before = _busy_ticks()
        time.sleep(SAMPLE_S)
        others = (_busy_ticks() - before) / (SAMPLE_S * os.sysconf("SC_CLK_TCK"))
    except OSError:  # no /proc: another system than Linux
        return cores
    return max(1, cores - int(others + 1 - BUSY))


def _busy_ticks() -> float:
    """Clock ticks that all processes of this machine together have spent working."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return user + nice + system + irq + softirq
