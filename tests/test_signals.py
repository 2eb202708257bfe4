"""A signal ends the program in order from its first line on, before anything heavy is imported."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SCRIPTS


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
