"""Operating-system calls that some systems lack, each with a fallback. No other module makes them.

Linux has all of them; macOS lacks `sched_getaffinity`, `/proc` and `prctl`, and its libraries do not survive a fork.
"""

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
ASSUMED_MEMORY = 4 << 30  # bytes, where the system does not say
WATCH_S = 0.5
PR_SET_PDEATHSIG = 1
# what flock reports on file systems without locks, e.g. some network mounts
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP}


def available_cores() -> int:
    """The number of processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def total_memory() -> int:
    """Bytes of main memory, or of the control group's limit where that is smaller."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        total = ASSUMED_MEMORY
    limit = _number(CGROUP / "memory.max")
    return total if limit is None else min(total, limit)


def available_memory() -> int:
    """Bytes that can be allocated now without swapping; half of the memory where the system does not say."""
    total = total_memory()
    free = _meminfo_available()
    used, limit = _number(CGROUP / "memory.current"), _number(CGROUP / "memory.max")
    if free is None:
        free = total // 2
    if used is not None and limit is not None:
        free = min(free, max(0, limit - used))
    return free


def can_fork() -> bool:
    """Whether a copy of this process can compute.

    False without `fork`, and on macOS, whose numerical and graphical libraries abort in a forked child. Threads are not
    copied, so the caller also makes sure that no library has started threads that the child would wait for.
    """
    return hasattr(os, "fork") and sys.platform != "darwin"


def after_fork_in_child(function: Callable[[], None]) -> None:
    """Call `function` in each forked child; nothing to do on systems without `fork`."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def end_with_parent(parent: int) -> None:
    """End this process when its parent ends: at once on Linux, elsewhere as `watch_parent` does.

    Args:
        parent: the parent's process id, taken before the fork: the parent may have ended since. On Linux the end of the
            parent's thread that started this process counts, so that must be one that lasts.
    """
    import ctypes

    try:
        failed = ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (AttributeError, OSError, TypeError):
        failed = True  # not Linux
    if failed:
        watch_parent(parent)
    elif os.getppid() != parent:
        os._exit(1)


def watch_parent(parent: int, grace_s: float = 0.0) -> None:
    """End this process, with exit code 1, `grace_s` seconds after its parent has ended, which `WATCH_S` may delay."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        time.sleep(grace_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch the parent process").start()


def lock(handle: int, *, shared: bool = False, wait: bool = False) -> bool | None:
    """Lock an open file until its descriptor is closed or its holders end.

    Returns:
        True: locked. False: another process holds it. None: this system or file system has no locks.

    Raises:
        OSError: any other error.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return False
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def sync(handle: int) -> None:
    """Wait until the disk has the file's content; macOS needs another call for that."""
    if fcntl is not None and hasattr(fcntl, "F_FULLFSYNC"):
        try:
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
        except OSError:
            pass  # not every file system has it
        else:
            return
    os.fsync(handle)


def _meminfo_available() -> int | None:
    try:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return None


def _number(path: Path) -> int | None:
    """The number that a control group file holds; None where there is none, or it says "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
