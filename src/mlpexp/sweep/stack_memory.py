"""How much memory one stack may take: bounded by the stack, not by the sweep."""

import os
from pathlib import Path

SHARE = 0.25  # of what is free: other processes, the data and the files' bytes want some too
LEAST = 64 << 20
MOST = 2 << 30  # more than a stack can use well


def stack_memory(mib: int | None) -> int:
    """Bytes: what a person asks for in MiB, or a share of what is free now."""
    if mib is not None:
        return mib << 20
    return int(min(MOST, max(LEAST, SHARE * _free())))


def _free() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass  # another system than Linux
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
