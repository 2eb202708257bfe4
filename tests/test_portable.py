"""What some operating systems lack has a fallback: each call is tried with its attribute or file removed."""

import ctypes
import errno
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlpexp.runtime import portable

SOURCES = Path(__file__).parents[1] / "src"
LINUX_ONLY = re.compile(r"\bos\.(sched_\w+|fork\b|register_at_fork)|\bfcntl\b|\bprctl\b|\"/proc|\bsysconf\b")


def test_no_other_module_makes_calls_that_some_systems_lack():
    found = [
        f"{path.relative_to(SOURCES)}: {line.strip()}"
        for path in SOURCES.rglob("*.py")
        if path.name != "portable.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if LINUX_ONLY.search(line)
    ]
    assert found == []


def test_cores_are_those_that_the_process_may_use_or_all(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert portable.available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert portable.available_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert portable.available_cores() == 1


def test_memory_is_known_without_proc_and_without_sysconf(monkeypatch, tmp_path):
    monkeypatch.setattr(portable, "CGROUP", tmp_path)
    monkeypatch.setattr(portable, "MEMINFO", tmp_path / "absent")
    assert portable.available_memory() == portable.total_memory() // 2
    monkeypatch.delattr(os, "sysconf")
    assert portable.total_memory() == portable.ASSUMED_MEMORY
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2048 kB\n")
    monkeypatch.setattr(portable, "MEMINFO", tmp_path / "meminfo")
    assert portable.available_memory() == 2 << 20


def test_the_limit_of_a_control_group_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(portable, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    assert (portable.total_memory(), portable.available_memory()) == (5_000_000, 2_000_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert portable.available_memory() > 5_000_000


def test_macos_and_systems_without_fork_do_not_fork(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert portable.can_fork()
    with monkeypatch.context() as patch:
        patch.delattr(os, "fork")
        assert not portable.can_fork()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not portable.can_fork()


def test_a_hook_after_fork_is_left_out_where_there_is_none(monkeypatch):
    monkeypatch.delattr(os, "register_at_fork")
    portable.after_fork_in_child(lambda: None)


@pytest.mark.parametrize("has_prctl", [True, False])
def test_a_child_ends_when_its_parent_is_killed(has_prctl, tmp_path):
    child = f"""
import ctypes, os, sys, time
sys.path.insert(0, {str(SOURCES)!r})
from mlpexp.runtime import portable
if not {has_prctl}:
    ctypes.CDLL = lambda *_, **__: object()
portable.WATCH_S = 0.01
portable.end_with_parent(os.getppid())
print("ready", flush=True)
time.sleep(30)
"""
    parent = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {child!r}])
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        assert process.stdout.read() == ""  # its end: the child, which has the pipe open too, has gone


def test_without_prctl_a_thread_watches_the_parent(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(portable, "WATCH_S", 0.01)
    parents = iter([42, 42, 1])
    ended = threading.Event()
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    portable.end_with_parent(42)
    assert ended.wait(5)


def test_a_lock_is_held_by_one_and_shared_by_several(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    one, two, three = (os.open(path, os.O_RDWR) for _ in range(3))
    try:
        assert portable.lock(one, shared=True) is True
        assert portable.lock(two, shared=True) is True
        assert portable.lock(three) is False
        os.close(one)
        one = -1
        assert portable.lock(three) is False
        os.close(two)
        two = -1
        assert portable.lock(three) is True
    finally:
        for handle in (one, two, three):
            if handle >= 0:
                os.close(handle)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told_from_a_lock_that_is_held(number, monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(portable.fcntl, "flock", refuse)
    with (tmp_path / "lock").open("w") as file:
        assert portable.lock(file.fileno()) is None
        monkeypatch.setattr(portable, "fcntl", None)
        assert portable.lock(file.fileno()) is None


def test_an_error_of_the_disk_is_not_taken_for_a_missing_lock(monkeypatch, tmp_path):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(portable.fcntl, "flock", fail)
    with (tmp_path / "lock").open("w") as file, pytest.raises(OSError, match=os.strerror(errno.EIO)):
        portable.lock(file.fileno())


def test_syncing_falls_back_where_the_full_sync_of_macos_fails(monkeypatch, tmp_path):
    synced = []
    monkeypatch.setattr(portable.fcntl, "F_FULLFSYNC", -1, raising=False)
    monkeypatch.setattr(os, "fsync", synced.append)
    with (tmp_path / "file").open("w") as file:
        portable.sync(file.fileno())
        assert synced == [file.fileno()]
