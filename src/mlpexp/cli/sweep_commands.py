"""What `sweep.py` prints and does: list, show, rm, compact, restore."""

import fnmatch
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from mlpexp.runtime import shell_commands
from mlpexp.runtime.errors import UserError, did_you_mean
from mlpexp.runtime.terminal import counted, say
from mlpexp.store import file_names, run_table, stack_states, sweep_activity, sweep_contents, sweep_housekeeping
from mlpexp.store.run_directory import FINITE
from mlpexp.store.run_weights import Weights
from mlpexp.store.sweep_contents import StoredRun

STATUSES = ("ok", "chance", "diverged", "stopped", "failed", "interrupted", "damaged", "unfinished")
NAMED = 10  # files or runs in a message
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def list_runs(sweep: Path, statuses: Sequence[str] | None = None) -> None:
    """A line for each run.

    Raises:
        UserError: there is no sweep, or no such status.
    """
    runs = _with_status(sweep_contents.runs(sweep), statuses)
    for run in runs:
        location = "table" if run.in_table else spelled(run.size)
        remark = " (set aside)" if run.is_aside else ""
        say(f"{run.status:<11} {location:>9}  {run.name}{remark}")
    say(_counted(runs))


def show(sweep: Path, name: str | None = None) -> None:
    """The numbers of runs, and sizes by kind of file; or one run.

    Raises:
        UserError: there is no sweep, or no such run.
    """
    stored = sweep_contents.runs(sweep)
    if name is not None:
        for run in _named(stored, sweep, [name]):
            _show_run(run)
        return
    say(f"{sweep}: {_counted([run for run in stored if not run.is_aside])}")
    if aside_runs := [run for run in stored if run.is_aside]:
        say(f"set aside: {_counted(aside_runs)}")
    if saved := stack_states.saved_runs(sweep):
        saved_runs = f"{len(saved):,} runs are saved with their" if len(saved) > 1 else "1 run is saved with its"
        say(f"under way: {saved_runs} epochs so far")
    if is_trained := sweep_activity.is_in_use(sweep):
        say("a process trains it now")
    if (missing := sweep_contents.num_missing(sweep, stored)) and is_trained is False:
        say(sweep_activity.stopped_sentence(sweep, missing))
    elif missing:
        say(f"{missing:,} planned run{'s are' if missing != 1 else ' is'} missing so far")
    sizes: dict[str, int] = defaultdict(int)
    for run in stored:
        for path, size in run.ours.items():
            sizes[_kind(path)] += size
    for path in sweep.iterdir():
        if path.name in (file_names.TABLE, file_names.WEIGHTS) or (
            path.is_dir() and not path.is_symlink() and path.name == "report"
        ):
            sizes[path.name] += sweep_contents.size_of(path)
    for kind, size in sorted(sizes.items(), key=lambda item: -item[1]):
        say(f"  {spelled(size):>9}  {kind}")
    if num_foreign := sum(len(run.foreign) for run in stored):
        say(f"  {num_foreign:,} files in the directories of runs were not written by mlpexp")


def remove(sweep: Path, names: Sequence[str], statuses: Sequence[str] | None, *, aside: bool, yes: bool) -> None:
    """Remove the runs with these names, of these statuses, and the set-aside ones.

    Raises:
        UserError: there is no such run, nothing is chosen, or the sweep is in use.
    """
    stored = sweep_contents.runs(sweep)
    runs = _named(stored, sweep, names)
    if statuses:
        runs += _with_status([run for run in stored if not run.is_aside], statuses)
    if aside:
        runs += [run for run in stored if run.is_aside]
    if not (names or statuses or aside):
        raise UserError("rm needs the runs to remove: names, --status failed,damaged, or --set-aside")
    runs = list({(run.name, run.in_table): run for run in runs}.values())
    if not runs:
        say("there is no such run; nothing was removed")
        return
    if not yes:
        say(f"would be removed: {_counted(runs)}")
        options = ["--status", ",".join(statuses)] if statuses else []
        _say_command("rm", [*names, *options, *["--set-aside"] * aside], sweep)
        return
    with sweep_housekeeping.locked(sweep, runs):
        sweep_housekeeping.remove(sweep, runs)
    say(f"removed: {_counted(runs)}")
    _say_foreign_files(runs)


def compact(sweep: Path, *, weights: bool, yes: bool) -> None:
    """Move the finished runs into the table.

    Args:
        weights: keep the weights that each run was tested with.

    Raises:
        UserError: there is no sweep, it is in use, or a run is not what its marker says.
    """
    stored = sweep_contents.runs(sweep)
    runs = sweep_housekeeping.compactable(stored)
    remaining = Counter(run.status for run in stored if run not in runs and not run.in_table and not run.is_aside)
    remark = (
        f"; {', '.join(f'{n:,} {status}' for status, n in remaining.items())} stay as they are" if remaining else ""
    )
    if not runs:
        say(f"no finished run has a directory of its own; nothing to do{remark}")
        return
    if not yes:
        say(
            f"would be moved into {sweep / file_names.TABLE}: {_counted(runs)}{remark}",
            f"event files, figures and {'states of optimizers' if weights else 'weights'} would be lost: "
            f"such runs cannot be trained further{'' if weights else ', evaluated or exported'}",
        )
        _say_command("compact", [] if weights else ["--no-weights"], sweep)
        return
    with sweep_housekeeping.locked(sweep, runs):
        sweep_housekeeping.compact(sweep, runs, _tested_weights if weights else lambda run: None)
    say(f"moved into {sweep / file_names.TABLE}: {_counted(runs)}{remark}")
    _say_foreign_files(runs)


def restore(sweep: Path, *, yes: bool) -> None:
    """Give the runs of the table directories again.

    Raises:
        UserError: there is no sweep, or it is in use.
    """
    sweep_contents.runs(sweep)
    count = sum(1 for _ in run_table.read(sweep))
    if not count:
        say(f"{sweep} has no runs in a table; nothing to do")
        return
    content = "with all that the table has of them"
    if not yes:
        say(f"{count:,} runs would get directories, {content}")
        _say_command("restore", [], sweep)
        return
    with sweep_housekeeping.locked(sweep, []):
        num_restored, refused = sweep_housekeeping.restore(sweep)
    say(f"{num_restored:,} runs have directories, {content}")
    if refused:
        say(f"{len(refused):,} stay in the table, since their directories are in use: {_listed(refused)}")


def spelled(size: float) -> str:
    """A number of bytes with its unit."""
    for unit in UNITS:
        if size < 1024 or unit == UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _tested_weights(run: StoredRun) -> Weights | None:
    """Of a run in a directory; None where its numbers are not finite."""
    from mlpexp.store import checkpoint_files  # torch: late

    if run.status not in FINITE or run.directory is None:
        return None
    return checkpoint_files.tested_checkpoint(run.directory)


def _show_run(run: StoredRun) -> None:
    say(f"{run.name}: {run.status}{' (set aside)' if run.is_aside else ''}{' (in the table)' if run.in_table else ''}")
    if run.result is not None:
        result = run.result
        say(f"  epochs {result.epochs}, {result.num_parameters:,} parameters, identity {result.identity}")
        say(*(f"  {name} {value:.6g}" for name, value in result.metrics.items()))
        if result.message:
            say(f"  {result.message}")
    for path, size in sorted(run.ours.items()):
        assert run.directory is not None
        say(f"  {spelled(size):>9}  {path.relative_to(run.directory).as_posix()}")
    for path in run.foreign:
        say(f"             {path.name} (not written by mlpexp)")


def _with_status(runs: Sequence[StoredRun], statuses: Sequence[str] | None) -> list[StoredRun]:
    if wrong := [status for status in statuses or () if status not in STATUSES]:
        raise UserError(f"unknown status {wrong[0]!r}; choose of {', '.join(STATUSES)}, e.g. --status failed,damaged")
    return [run for run in runs if not statuses or run.status in statuses]


def _named(runs: Sequence[StoredRun], sweep: Path, names: Sequence[str]) -> list[StoredRun]:
    """The runs with these names, which may be patterns (`width=4*`) or paths (`multirun/NAME/RUN`).

    Raises:
        UserError: there is none with such a name.
    """
    chosen: set[str] = set()
    existing = {run.name for run in runs}
    for typed in names:
        name = typed.removeprefix(f"{sweep}{os.sep}").rstrip(os.sep)
        # brackets are part of names: width=[32,64]
        found = {name} & existing or set(fnmatch.filter(existing, name.replace("[", "[[]")))
        if not found:
            raise UserError(f"there is no run {typed!r}; {did_you_mean(name, existing, 'see list')}")
        chosen |= found
    return [run for run in runs if run.name in chosen]


def _counted(runs: Sequence[StoredRun]) -> str:
    """`12 runs (10 ok, 2 failed), 1.2 MiB`."""
    counts = Counter(run.status for run in runs)
    by_status = ", ".join(f"{counts[status]:,} {status}" for status in STATUSES if counts[status])
    size = sum(run.size for run in runs)
    return f"{counted(len(runs), 'run')}{f' ({by_status})' if by_status else ''}, {spelled(size)}"


def _kind(path: Path) -> str:
    if path.parent.name in ("checkpoints", "figures", "evaluation", file_names.HYDRA):
        return path.parent.name
    return "event files" if path.match(file_names.EVENTS) else path.name


def _say_command(action: str, options: Sequence[str], sweep: Path) -> None:
    say(f"to do it: {shell_commands.script('sweep.py', str(sweep), action, *options, '--yes')}")


def _say_foreign_files(runs: Sequence[StoredRun]) -> None:
    if foreign := [str(path) for run in runs for path in run.foreign]:
        say(f"{len(foreign):,} files were not written by mlpexp and stay: {_listed(foreign)}")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
