"""Changes of a sweep that is not training: remove runs, move them from directories into the table, and back.

Only what mlpexp has written is removed. Each change can be stopped at any moment: a run is then in its old place, or in
the new one, or in both, and is found in each.
"""

import contextlib
import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.store import (
    atomic_files,
    directory_lock,
    file_names,
    run_directory,
    run_state,
    run_table,
    run_weights,
    sweep_activity,
    sweep_manifest,
    worker_session,
)
from mlpexp.store.run_directory import FINAL
from mlpexp.store.run_state import State
from mlpexp.store.run_weights import Weights
from mlpexp.store.sweep_contents import StoredRun, is_real

# the files of a run that the table keeps, beside its marker
KEPT = (*file_names.TABLES, file_names.OVERRIDES, file_names.CONFIG, file_names.LOG)
SEALED = (*file_names.TABLES, file_names.BEST, file_names.LAST)  # those whose checksums are in a marker
PORTION = 100  # runs whose weights are in memory at once

WeightsOf = Callable[[StoredRun], Weights | None]


@contextmanager
def locked(sweep: Path, chosen: Sequence[StoredRun]) -> Iterator[None]:
    """Lock the sweep and these runs against training by other processes while the block runs.

    Raises:
        UserError: one does.
    """
    with ExitStack() as stack:
        stack.enter_context(directory_lock.hold(sweep))
        worker_session.wait(sweep)
        for run in chosen:
            if run.directory is not None and (handle := directory_lock.reserve(run.directory)) is not None:
                stack.callback(directory_lock.release, handle)
        atomic_files.clean(sweep)
        if not (sweep / file_names.TABLE).exists():  # a crash came between the removal of the two
            (sweep / file_names.WEIGHTS).unlink(missing_ok=True)
        sweep_activity.remove_curves(sweep)
        yield


def remove(sweep: Path, chosen: Sequence[StoredRun]) -> None:
    """Remove runs, and their entries in the results and the manifest; needs `locked`.

    After a crash at any moment what is left of a run is listed, and can be removed.
    """
    for run in chosen:
        _remove_files(run, all_but_marker=True)
    names = {run.name for run in chosen if not run.is_aside}
    manifest = sweep_manifest.read(sweep)
    if manifest is not None and names & set(manifest.runs.values()):
        remaining = {identity: name for identity, name in manifest.runs.items() if name not in names}
        sweep_manifest.write(sweep, replace(manifest, runs=remaining))
    _remove_rows(sweep / file_names.RESULTS, names)
    if in_table := {run.name for run in chosen if run.in_table}:
        _remove_lines(sweep, in_table)
    for run in chosen:
        _remove_files(run)
    with contextlib.suppress(OSError):  # something is left there
        (sweep / file_names.SET_ASIDE).rmdir()


def compactable(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The finished runs in directories, which `compact` moves into the table, and what a crash has left of some."""
    in_table = {run.key for run in runs if run.in_table}
    return [
        run
        for run in runs
        if run.directory is not None and not run.is_aside and (run.status in FINAL or run.key in in_table)
    ]


def compact(sweep: Path, chosen: Sequence[StoredRun], weights_of: WeightsOf) -> None:
    """Move finished runs from their directories into the table, without the states of optimizers, events and figures.

    Args:
        weights_of: what is kept of a run's checkpoints; None for nothing.

    Raises:
        UserError: a run's files are not what its marker says; nothing has been changed then.
    """
    in_table = {(identity, name) for identity, names in run_table.results(sweep).items() for name in names}
    entries: list[tuple[StoredRun, dict[str, str]]] = []
    for run in chosen:
        assert run.directory is not None
        assert run.result is not None
        if run.key in in_table:
            continue
        files = {}
        for name in KEPT:
            with contextlib.suppress(FileNotFoundError):
                content = safe_files.read_bytes(run.directory / name, follow=False)
                checksum = run_directory.checksum(content)
                if run.result.files.get(name, checksum) != checksum:
                    raise UserError(f"{run.directory / name} is not what the run's marker says; nothing was changed")
                files[name] = content.decode("utf-8", "replace")
        result = run_directory.result_json(replace(run.result, files={}))
        entries.append((run, files | {file_names.RESULT: result}))
    for start in range(0, len(entries), PORTION):
        portion = entries[start : start + PORTION]
        weights = [weights_of(run) for run, _ in portion]
        positions = iter(run_weights.append(sweep, [content for content in weights if content is not None]))
        lines = [
            (run.name, files if content is None else files | {file_names.WEIGHTS: next(positions)})
            for (run, files), content in zip(portion, weights, strict=True)
        ]
        run_table.append(sweep, lines)
    for run in chosen:
        _remove_files(run)


def restore(sweep: Path) -> tuple[int, list[str]]:
    """Write a directory for each run of the table, with the files that the table has.

    Returns:
        The number of runs, and the names of those whose directory is in use, which stay in the table.
    """
    done, refused = set[str](), []
    for name, files in run_table.read(sweep):
        directory = sweep / name
        is_free = is_real(sweep, name) or not any(
            os.path.lexists(sweep / part) for part in (name, name.partition("/")[0])
        )
        result = run_directory.parse_result(files[file_names.RESULT], sweep / file_names.TABLE)
        state = run_state.inspect(directory, result.identity).state if is_free else State.OTHER
        if state is State.DONE:  # a crash came before its line was removed
            done.add(name)
            continue
        if state is State.OTHER or (state is not State.NEW and not _is_rest_of(directory, result.identity)):
            refused.append(name)
            continue
        contents = {path: text.encode() for path, text in files.items() if path in KEPT}
        if (checkpoint := run_weights.checkpoint_of(directory)) is not None:
            contents[checkpoint] = run_weights.read(directory / checkpoint) or b""
        for path, content in contents.items():
            atomic_files.make_directory((directory / path).parent, parents=True)
            atomic_files.write(directory / path, content)
        for folder in {(directory / path).parent for path in contents}:
            atomic_files.clean(folder)
        sums = {path: run_directory.checksum(content) for path, content in contents.items() if path in SEALED}
        run_directory.write_result(directory, replace(result, files=sums))
        done.add(name)
    os.sync()  # before the table, which cannot be made again, is gone
    _remove_lines(sweep, done)
    return len(done), refused


def _is_rest_of(directory: Path, identity: str) -> bool:
    """Whether a crash in `compact` or `restore` has left the files of this run there: they have its marker, or none."""
    try:
        return run_directory.read_result(directory).identity == identity
    except UserError:
        return not os.path.lexists(directory / file_names.RESULT)


def _remove_lines(sweep: Path, names: set[str]) -> None:
    """Remove runs from the table; with the last one, remove the file of weights."""
    run_table.remove(sweep, names)
    if not (sweep / file_names.TABLE).exists():
        (sweep / file_names.WEIGHTS).unlink(missing_ok=True)


def _remove_files(run: StoredRun, *, all_but_marker: bool = False) -> None:
    """Remove the files of a run, the marker last: until then a crash leaves a damaged run, which is listed."""
    if run.directory is None:
        return
    marker = run.directory / file_names.RESULT
    for path in sorted(run.ours, key=marker.__eq__):
        if path != marker or not all_but_marker:
            path.unlink(missing_ok=True)
    if all_but_marker:
        return
    for folder in sorted({parent for path in run.ours for parent in path.parents}, key=lambda path: -len(path.parts)):
        if folder.is_relative_to(run.directory):
            with contextlib.suppress(OSError):  # other files are there
                folder.rmdir()


def _remove_rows(table: Path, names: set[str]) -> None:
    """Remove runs from `results.csv`, whose other rows stay as they are."""
    try:
        text = safe_files.read_text(table, run_table.MAX_FILE, follow=False)
    except FileNotFoundError:
        return
    header, *rows = csv.reader(io.StringIO(text, newline="")) if text else [[]]
    if "name" not in header:
        return
    column = header.index("name")
    remaining = [row for row in rows if len(row) <= column or row[column] not in names]
    if len(remaining) < len(rows):
        content = io.StringIO()
        csv.writer(content, lineterminator="\n").writerows([header, *remaining])
        atomic_files.write(table, content.getvalue())
