"""How much of the processor a sweep will get beside what else runs on this machine."""

import time
from pathlib import Path

from mlpexp.runtime.portable import available_cores

LOOKS, BETWEEN_S = 8, 0.004


def waiting(workers: int) -> float:
    """How many times longer than alone each of so many processes will take, if the others stay; at least 1."""
    return max(1.0, (_others() + workers) / available_cores())


def _others() -> float:
    """Processes that would run now beside this one, on average over some looks; 0 where nobody tells."""
    found = 0
    for _ in range(LOOKS):
        try:
            # e.g. 0.20 0.18 0.12 1/80 11206
            found += int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1
        except OSError:
            return 0.0
        time.sleep(BETWEEN_S)
    return found / LOOKS
