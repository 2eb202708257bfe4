"""Runs the command after the first argument, a sweep's directory, and kills the first worker of that sweep."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from sweeps_away import Killer

with Killer(Path(sys.argv[1])) as killer:
    code = subprocess.call(sys.argv[2:])
if not killer.killed:
    sys.exit("no worker was seen at work")
sys.exit(code)
