"""A signal ends the program in order from its first line on, before anything heavy is imported."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import SCRIPTS
from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlpexp.cli import exit_codes
from mlpexp.runtime.errors import Interrupted


def handles(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal, by what the kernel says."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> number - 1 & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_during_the_imports_ends_it_with_its_code_and_one_line(here: Path, number: int, code: int):
    command = [sys.executable, str(SCRIPTS / "train.py"), "-m", "seed=1,2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not handles(process.pid, signal.SIGHUP):  # Python itself has SIGINT's
        time.sleep(0.001)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert err.startswith(f"train.py: stopped by {signal.Signals(number).name}")
    assert err.count("\n") == 1
    assert not list(here.iterdir())


ENDING = """
import os, signal, sys
from mlpexp.runtime import signals
signals.exit_at_once()
try:
    with signals.interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
except BaseException as error:
    os.kill(os.getpid(), signal.SIGTERM)
    print(error)
"""


def test_an_impatient_second_signal_while_the_program_ends_says_and_changes_nothing():
    ended = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "stopped by SIGTERM\n", "")


IN_A_CALLBACK = """
import ctypes, gc, os, signal, sys, time, weakref
from mlpexp.runtime import signals
from mlpexp.runtime.errors import Interrupted

def stop(*_):
    os.kill(os.getpid(), signal.{name})
    time.sleep(0)  # the handler runs here, where its exception cannot leave

class Owner:
    def __del__(self):
        stop()

def of_c():
    callback = ctypes.CFUNCTYPE(None)(stop)
    callback()

def of_a_collection():
    gc.callbacks.append(stop)
    gc.collect()
    gc.callbacks.clear()

def of_a_finalizer():
    Owner()

def of_a_weak_reference():
    owner = set()
    watched = weakref.ref(owner, stop)
    del owner

with signals.interruptible():
    try:
        {where}()
        for _ in range(1000):
            time.sleep(0.01)
        print("went on")
    except Interrupted as error:
        print(error, error.exit_code)
"""


@pytest.mark.parametrize("where", ["of_c", "of_a_collection", "of_a_finalizer", "of_a_weak_reference"])
def test_a_signal_in_a_callback_whose_exceptions_python_drops_stops_the_program_all_the_same(where: str):
    program = IN_A_CALLBACK.format(name="SIGTERM", where=where)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "stopped by SIGTERM 143\n", "")


IN_THE_HOOK = """
import os, signal, sys, time
from mlpexp.runtime import signals
from mlpexp.runtime.errors import Interrupted

def hook(dropped):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0)  # the handler runs here, where its exception cannot leave

class Raising:
    def __del__(self):
        raise ValueError

sys.unraisablehook = hook
with signals.interruptible():
    try:
        Raising()
        for _ in range(1000):
            time.sleep(0.01)
        print("went on")
    except Interrupted as error:
        print(error, error.exit_code)
"""


def test_a_signal_while_python_reports_a_dropped_exception_stops_the_program_all_the_same():
    ended = subprocess.run([sys.executable, "-c", IN_THE_HOOK], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "stopped by SIGTERM 143\n", "")


AS_A_WORKER_STARTS = """
import os, signal, sys
from concurrent import futures
from multiprocessing import get_context, process
from mlpexp.runtime import fast_imports, signals
fast_imports.install()
from mlpexp.runtime import process_pool

real = process.BaseProcess._bootstrap

def signalled(self, *arguments, **options):
    for number in (signal.SIGINT, signal.SIGTERM) if {both} else (signal.SIGINT,):
        os.kill(os.getpid(), number)
    return real(self, *arguments, **options)

process.BaseProcess._bootstrap = signalled

with signals.interruptible():
    pool = process_pool.ForkPool(
        max_workers=1, mp_context=get_context("fork"), initializer=process_pool.begin, initargs=(os.getpid(),)
    )
    with signals.blocked():
        answer = pool.submit(os.getppid)
    try:
        print(answer.result() == os.getpid())
    except futures.BrokenExecutor:
        print("lost")
    pool.shutdown(kill_workers=True)
"""


@pytest.mark.parametrize(("both", "said"), [(False, "True\n"), (True, "lost\n")])
def test_a_signal_to_a_worker_that_starts_prints_nothing(both: bool, said: str):
    program = AS_A_WORKER_STARTS.format(both=both)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, said, "")


def test_a_signal_of_which_a_library_makes_an_error_of_its_own_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """OmegaConf cleans up a list whose last place is empty yet."""

    ordinary = ListConfig._set_item_impl

    def stopped(self: ListConfig, index: int, value: Any) -> None:
        if value == 2:
            raise Interrupted("stopped by SIGTERM", 143)
        ordinary(self, index, value)

    monkeypatch.setattr(ListConfig, "_set_item_impl", stopped)
    with pytest.raises(OmegaConfBaseException, match="NoneType"):
        OmegaConf.create({"key": [1, 2]})
    with pytest.raises(SystemExit) as ended:
        exit_codes.run(lambda: OmegaConf.create({"key": [1, 2]}))
    assert ended.value.code == 143
    assert capsys.readouterr().err.endswith(": stopped by SIGTERM\n")
