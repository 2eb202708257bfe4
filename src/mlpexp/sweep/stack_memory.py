"""How much memory one stack may take: bounded by the stack, not by the sweep."""

from mlpexp.runtime.portable import available_memory

SHARE = 0.25  # of what is free: other processes, the data and the files' bytes want some too
LEAST = 64 << 20
MOST = 2 << 30  # more than a stack can use well


def stack_memory(mib: int | None) -> int:
    """Bytes: what a person asks for in MiB, or a share of what is free now."""
    if mib is not None:
        return mib << 20
    return int(min(MOST, max(LEAST, SHARE * available_memory())))
