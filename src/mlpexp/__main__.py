"""The console command: `mlpexp train …` is `scripts/train.py …`, also where there is no checkout."""

import ast
import runpy
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from mlpexp.runtime import shell_commands
from mlpexp.runtime.errors import did_you_mean
from mlpexp.runtime.terminal import say

HELPER = "require_environment"


def main() -> None:
    """Run the script that the first argument names, with the others."""
    scripts = {path.stem: path for path in sorted(shell_commands.scripts().glob("*.py")) if path.stem != HELPER}
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        say(_usage(scripts.values()))
    elif name == "--version":
        from importlib.metadata import version

        say(f"mlpexp {version('mlpexp')}")
    elif name in scripts:
        path = scripts[name]
        sys.argv = [str(path), *sys.argv[2:]]
        sys.path.insert(0, str(path.parent))  # as Python does when it runs a script
        runpy.run_path(str(path), run_name="__main__")
    elif "=" in name or name in ("-m", "--multirun"):
        say(f"mlpexp: a command comes first; to train: {shlex.join(['mlpexp', 'train', *sys.argv[1:]])}", error=True)
        sys.exit(2)
    else:
        hint = did_you_mean(name, scripts, f"the commands are {', '.join(scripts)}")
        say(f"mlpexp: unknown command {name!r}; {hint}", error=True)
        sys.exit(2)


def _usage(scripts: Iterable[Path]) -> str:
    lines = ["usage: mlpexp COMMAND [arguments]", "", "commands (mlpexp COMMAND --help says more):"]
    for path in scripts:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first = f"  {path.stem:<10} {text.splitlines()[0]}"
        lines += textwrap.wrap(first, shutil.get_terminal_size().columns - 1, subsequent_indent=" " * 13)
    return "\n".join([*lines, "", "example: mlpexp train -m model.width=32,64 'seed=range(5)' name=widths"])


if __name__ == "__main__":
    main()
