"""A sample of the fault campaign (`make faults` is the whole): whatever happens, the same command carries on."""

import os
import random
import subprocess
import sys
from pathlib import Path

CAMPAIGN = Path(__file__).parent / "faults/campaign.py"
LIVES = ["lives", "searches"]  # all kinds of faults by turns
KINDS = [
    *("kill", "worker", "conductor", "states", "full", "errors", "flips", "rivals", "silence", "signals", "group"),
    *("pruned", "again", "further", "tidied"),
    *("special", "links", "snapshots", "shifted", "resealed", "crash", "deep"),
]


def test_a_sampled_campaign_loses_nothing():
    seed = os.environ.get("FAULTS_SEED") or str(random.randrange(2**31))  # printed when it fails
    draw = random.Random(seed)
    kinds = [draw.choice(LIVES), draw.choice(KINDS)]
    command = [sys.executable, str(CAMPAIGN), "--sample", "--seed", seed, "--jobs", "1", "--only", *kinds]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert ended.returncode == 0, ended.stdout + ended.stderr
