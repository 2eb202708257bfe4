"""Whether a process trains a sweep now, the command that continues it, and the curves of its runs under way."""

import shlex
from pathlib import Path
from typing import Any

from mlpexp.runtime import safe_files, shell_commands
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_yaml import parse_yaml
from mlpexp.store import atomic_files, directory_lock
from mlpexp.store.file_names import MULTIRUN, UNDER_WAY

MAX_BYTES = 1 << 20
MODE = "hydra.mode=MULTIRUN"


def stopped_sentence(directory: Path, missing: int) -> str:
    """One line on a sweep of which runs are missing, for one that no process trains.

    Args:
        missing: how many planned runs have not ended.
    """
    command = continuing_command(directory)
    how = f"this command continues it: {command}" if command else "the command that started it continues it"
    runs = f"{missing:,} planned run{'s are' if missing != 1 else ' is'} missing"
    return f"no process trains {directory} now, and {runs}; {how}"


def is_in_use(directory: Path) -> bool | None:
    """Whether a process trains the runs of a directory now; None where the file system has no locks."""
    return directory_lock.is_held(directory)


def continuing_command(directory: Path) -> str | None:
    """The command line that has started a sweep, which also continues it; None where `multirun.yaml` does not say."""
    path = directory / MULTIRUN
    try:
        hydra = parse_yaml(safe_files.read_text(path, MAX_BYTES), path)["hydra"]
        own, task = _texts(hydra["overrides"]["hydra"]), _texts(hydra["overrides"]["task"])
        started_in, sources = Path(hydra["runtime"]["cwd"]), list(hydra["runtime"]["config_sources"])
        added = [str(source["path"]) for source in sources if source["provider"] == "command-line"]
    except (OSError, ValueError, UserError, KeyError, TypeError):
        return None
    words = ["-m", *(word for path in added for word in ("--config-dir", path))]
    words += [*(text for text in own if text != MODE), *task]
    if not any(word.startswith(("name=", "hydra.sweep.dir=")) for word in words):
        words.append(f"hydra.sweep.dir={directory.resolve()}")
    command = shell_commands.script("train.py", *words)
    return command if started_in == Path.cwd() else f"cd {shlex.quote(str(started_in))} && {command}"


def remove_curves(directory: Path) -> None:
    """Remove the curves of runs under way that a process has left, e.g. when it was killed; none may be training.

    Raises:
        UserError: there is a symbolic link in their place.
    """
    folder = directory / UNDER_WAY
    atomic_files.refuse_link(folder)
    if folder.is_dir():
        from mlpexp.tracking.live_curves import clean  # TensorBoard: late

        clean(folder)


def _texts(given: Any) -> list[str]:
    if not isinstance(given, list):
        raise TypeError("no list of overrides")
    return [str(item) for item in given]
