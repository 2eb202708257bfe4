"""Printing never stops a program: closed pipes, full devices, terminals without the characters that we print."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENTRY_POINTS, SCRIPTS, tree

from mlpexp.runtime import output_streams

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
# heavy libraries are imported once; each case is a process of its own
PRINTS = """
import os, sys
from mlpexp.runtime import output_streams
output_streams.protect()
output_streams.protect()
for stream in (sys.stdout, sys.stderr):
    print("± 3 × μ é \\udcff" * int(sys.argv[1]), file=stream, flush=True)
os.system("echo a child writes too")
print("again")
error = output_streams.failure()
print("trained", error and error.errno, file=open(sys.argv[2], "w"))
"""


def prints(folder: Path, *, count: int = 1, **options) -> tuple[int, str]:
    """Exit code of a process that prints, and what it says in a file at its end."""
    said = folder / "said"
    command = [sys.executable, "-c", PRINTS, str(count), str(said)]
    ended = subprocess.run(command, check=False, timeout=60, **options)
    return ended.returncode, said.read_text()


@pytest.mark.parametrize("count", [1, 10_000], ids=["little", "much"])
def test_a_closed_pipe_is_no_failure(tmp_path, count):
    reader, writer = os.pipe()
    os.close(reader)
    assert prints(tmp_path, count=count, stdout=writer, stderr=writer) == (0, "trained None\n")
    os.close(writer)


@needs_full
@pytest.mark.parametrize("count", [1, 10_000], ids=["little", "much"])
def test_a_full_device_is_known_at_the_end(tmp_path, count):
    with FULL.open("w") as full:
        assert prints(tmp_path, count=count, stdout=full, stderr=full) == (0, f"trained {errno.ENOSPC}\n")


def test_streams_that_were_closed_before_the_start_are_nobodys_file(tmp_path):
    assert prints(tmp_path, preexec_fn=lambda: (os.close(1), os.close(2))) == (0, "trained None\n")


def test_a_full_non_blocking_pipe_is_waited_for(tmp_path):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    command = [sys.executable, "-c", PRINTS, "20000", str(tmp_path / "said")]
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.DEVNULL) as process:
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            assert pipe.read().endswith(b"again\n")
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("ascii", "+/- 3 x mu \\xe9 \\udcff"), ("latin-1", "± 3 × mu é \\udcff"), ("utf-8", "± 3 × μ é \\udcff")],
)
def test_characters_that_the_terminal_lacks_are_written_in_others(tmp_path, encoding, text):
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", PRINTS, "1", str(tmp_path / "said")]
    ended = subprocess.run(command, capture_output=True, check=True, timeout=60, env=environment)
    assert ended.stdout.decode(encoding).splitlines() == [text, "a child writes too", "again"]
    assert ended.stderr.decode(encoding).splitlines()[0] == text


RESULT = """
import sys
from mlpexp.runtime import output_streams
output_streams.protect()
print("before")
output_streams.write_result("name\\nGröße\\n")
"""


@needs_full
def test_a_result_is_utf_8_and_a_full_device_is_an_error_for_it():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", RESULT]
    assert subprocess.check_output(command, env=environment).decode() == "before\nname\nGröße\n"
    with FULL.open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 1
    assert b"standard output cannot be written: No space left on device" in ended.stderr


def test_streams_that_are_not_python_s_own_are_left_alone(monkeypatch):
    for stream in (io.StringIO(), io.TextIOWrapper(io.BytesIO(), "ascii")):
        monkeypatch.setattr(sys, "stdout", stream)
        output_streams.protect()
        assert sys.stdout is stream
        output_streams.write_result("a")


@needs_full
@pytest.mark.thorough(sample=3)
@pytest.mark.parametrize("script", ENTRY_POINTS)
def test_help_on_a_full_device_is_no_traceback(script):
    with FULL.open("w") as full:
        ended = subprocess.run(
            [sys.executable, str(SCRIPTS / script), "--help"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert ended.returncode == 0
    assert b"Traceback" not in ended.stderr


@needs_full
def test_a_sweep_whose_output_is_lost_trains_to_its_end(here):
    quick = "trainer.max_epochs=1 stack.engine=torch tracking.tensorboard=false tracking.figures=false"
    command = [sys.executable, str(SCRIPTS / "train.py"), "-m", "name=s", "seed=1,2", *quick.split()]
    with FULL.open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, text=True)
    assert ended.returncode == 0
    assert ended.stderr == "train.py: standard output was cut: No space left on device; all else is done\n"
    for run in (here / "multirun/s").glob("*seed=*"):
        assert {"result.json", "metrics.csv", "checkpoints/last.ckpt"} <= tree(run).keys()
    assert (here / "multirun/s/results.csv").read_text().count("\n") == 3
