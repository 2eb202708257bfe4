"""A sweep carries on under other launchers too: each job looks for itself whether it is done."""

from pathlib import Path

from mlpexp import data
from mlpexp.config.schema import Config
from mlpexp.runtime.errors import UserError
from mlpexp.store import file_names
from mlpexp.store.identity import identity
from mlpexp.store.run_directory import Result
from mlpexp.store.run_state import State, inspect, set_content_aside


def on(cfg: Config, directory: Path) -> Result | None:
    """The result of a run that is done; what a damaged, failed or interrupted one has left is set aside.

    Hydra has opened the run's log and written its configuration, so these stay where they are.

    Raises:
        UserError: the directory holds another run that is done.
    """
    found = inspect(directory, identity(cfg, data.digest(cfg.data)))
    if found.state in (State.DONE, State.NEW):
        return found.result
    if found.state is State.OTHER:
        raise UserError(f"{directory} holds another run, which is finished; choose another name=…")
    set_content_aside(directory, directory.parent / file_names.SET_ASIDE)
    return None
