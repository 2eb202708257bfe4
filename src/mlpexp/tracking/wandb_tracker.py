"""`tracker=wandb`: each run as a run of Weights & Biases, in a group of the sweep's name.

W&B's own variables say where: `WANDB_PROJECT` (`mlpexp` by default), `WANDB_ENTITY`, `WANDB_DIR`, `WANDB_MODE`. Without
a key (`wandb login`) runs are kept offline, for `wandb sync`. W&B has no request for many runs at once, so that each
takes about half a second; `.wandb_runs` in the group's directory lists those that are complete.
"""

import hashlib
import json
import netrc
import os
import shutil
from collections.abc import Container, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from mlpexp.store import atomic_files
from mlpexp.tracking.trackers import Group, TrackedRun

LISTED = ".wandb_runs"
DEFAULT_PROJECT, DEFAULT_SERVER = "mlpexp", "https://api.wandb.ai"
INIT_S = 30.0  # for an answer of the server
FAILED = ("diverged",)  # statuses that W&B shows as failed


class WandbTracker:
    """A `Tracker`."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._list = group.directory / LISTED
        self._runs = self._read()  # W&B's name of each run by its identity
        os.environ.setdefault("WANDB_SILENT", "true")  # mlpexp has said where the runs are
        self._place = Path(os.environ.get("WANDB_DIR") or group.home)

    def known(self) -> Container[str]:
        return self._runs

    def record(self, runs: Sequence[TrackedRun]) -> None:
        for run in runs:
            if run.identity in self._runs:
                continue
            new = hashlib.sha256(f"{self._group.key} {run.identity}".encode()).hexdigest()[:16]
            # what is trained further stays the same run
            name = next((self._runs[earlier] for earlier in run.earlier if earlier in self._runs), new)
            self._write(run, name)
            self._runs[run.identity] = name
            atomic_files.append(self._list, f"{json.dumps([run.identity, name])}\n")

    def close(self) -> None: ...

    def _read(self) -> dict[str, str]:
        names: dict[str, str] = {}
        if self._list.is_file():
            for line in self._list.read_text().splitlines():
                with suppress(ValueError):  # truncated by a crash
                    identity, name = json.loads(line)
                    names[identity] = name
        return names

    def _write(self, run: TrackedRun, name: str) -> None:
        import wandb

        old_copies = self._offline_copies(name)
        wandb_run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT,
            dir=str(self._place),
            id=name,
            name=run.name,
            group=self._group.name if self._group.is_sweep else None,
            mode=None if _has_key() or os.environ.get("WANDB_MODE") else "offline",
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, save_code=False, init_timeout=INIT_S
            ),
        )
        try:
            keys = {"mlpexp.identity": run.identity, "mlpexp.group": self._group.key}
            wandb_run.config.update({**run.params, **keys}, allow_val_change=True)
            for epoch, values in enumerate(run.history):
                if epoch >= wandb_run.step:  # of a run that was there already the server has the others
                    wandb_run.log(dict(values), step=epoch)
            wandb_run.summary.update({**run.summary, "status": run.status, "message": run.message})
            for file, path in run.files.items():
                wandb_run.save(str(path), base_path=str(path.parents[file.count("/")]), policy="now")
        except BaseException:
            wandb_run.finish(exit_code=1)
            raise
        wandb_run.finish(exit_code=int(run.status in FAILED))
        for copy in old_copies:  # the whole run is in the new one
            shutil.rmtree(copy)

    def _offline_copies(self, name: str) -> list[Path]:
        return [path for path in (self._place / "wandb").glob(f"offline-run-*-{name}") if path.is_dir()]


def _has_key() -> bool:
    """Whether W&B's client can log in without asking."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or DEFAULT_SERVER).hostname or ""
    with suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    return False
