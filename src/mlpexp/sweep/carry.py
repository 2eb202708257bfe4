"""A sweep carries on under other launchers too: each job looks for itself whether it is done."""

from pathlib import Path

from mlpexp import runs
from mlpexp.config import Config
from mlpexp.data import digest
from mlpexp.errors import UserError
from mlpexp.runs import Result
from mlpexp.sweep.recognise import BEFORE_TRAINING, SET_ASIDE, State, look, vacant


def on(cfg: Config, directory: Path) -> Result | None:
    """The result of a run that is done; what a torn, failed or interrupted one has left is set aside.

    Hydra has opened the run's log and written its configuration, so these stay where they are.

    Raises:
        UserError: the directory holds another run that is done.
    """
    found = look(directory, runs.identity(cfg, digest.of(cfg.data)))
    if found.state in (State.DONE, State.NEW):
        return found.result
    if found.other:
        raise UserError(f"{directory} holds another run; choose another name=…")
    place = vacant(directory.parent / SET_ASIDE, directory.name)
    place.mkdir()
    for path in directory.iterdir():
        if path.name not in BEFORE_TRAINING:
            path.rename(place / path.name)
    return None
