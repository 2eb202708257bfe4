"""Imported first by each script: one line, not a traceback, where the packages are not installed."""

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("mlpexp", "hydra", "torch", "lightning")


def _advice() -> str:
    python, script = (
        os.path.relpath(path) for path in (ROOT / ".venv" / "bin" / "python", ROOT / "scripts" / Path(sys.argv[0]).name)
    )
    if not (ROOT / "Makefile").exists():
        return f"install them for this Python: {shlex.quote(sys.executable)} -m pip install mlpexp"
    if not Path(python).exists():
        return f"set the environment up first: make -C {shlex.quote(str(ROOT))} setup"
    return "use the project's environment: " + " ".join(shlex.quote(word) for word in (python, script, *sys.argv[1:]))


_missing = [name for name in NEEDED if find_spec(name) is None]
if _missing:
    name = Path(sys.argv[0]).name
    print(f"{name}: {', '.join(_missing)} cannot be imported by {sys.executable}; {_advice()}", file=sys.stderr)
    sys.exit(2)
