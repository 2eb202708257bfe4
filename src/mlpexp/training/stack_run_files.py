"""Writes the directory of a run that trained in a stack, with the files of a run that trained alone."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from mlpexp.config.schema import Config
from mlpexp.data.prepared_data import Prepared
from mlpexp.models.training_state import TrainingState
from mlpexp.runtime import safe_files
from mlpexp.runtime.object_cache import ByObject
from mlpexp.store import atomic_files, directory_checks, file_names, run_directory, run_table
from mlpexp.store.checkpoint_archive import archive
from mlpexp.store.run_directory import Result
from mlpexp.store.run_weights import Weights
from mlpexp.tracking.event_files import encode, file_name
from mlpexp.tracking.events import Event
from mlpexp.tracking.run_events import Hparam, confusion_table, curve_titles, run_events
from mlpexp.training.final_status import Conclusion, conclude, result_of
from mlpexp.training.stack_checkpoints import assemble, network_only


def write_run(
    cfg: Config,
    data: Prepared,
    state: TrainingState,
    directory: Path,
    hparams: Mapping[str, Hparam],
    write: Callable[[Path, Mapping[str, bytes]], None] | None = None,
) -> Result:
    """Write all files of a run whose training has ended; the marker comes last.

    Args:
        directory: holds what Hydra writes.
        hparams: its row of TensorBoard's HParams page.
        write: puts files, by path, into the directory; by default one after the other.
    """
    directory_checks.check_unused(directory, under_way=True)
    end = conclude(cfg, data, state.record)
    files = {name: text.encode() for name, text in _tables(state).items()} | _checkpoints(cfg, data, state)
    if cfg.writes_events:
        files[file_name(state.wall_times[0])] = encode(_events(cfg, data, state, end, hparams))
    result = _result(cfg, data, state, end, files | _written_in_training(cfg, directory))
    (write or _write_files)(directory, files | {file_names.RESULT: run_directory.result_text(result).encode()})
    return result


def _checkpoints(cfg: Config, data: Prepared, state: TrainingState) -> dict[str, bytes]:
    """The checkpoints of the last and of the best epoch; often both are of the same epoch."""
    history, best = state.record.history, state.record.progress.best_epoch
    steps = cfg.data.steps(len(data.split.train))
    archives: dict[int, bytes] = {}  # by the number of epochs
    files: dict[str, bytes] = {}
    for name, snapshot, epochs in (
        (file_names.LAST, state.last, len(history)),
        (file_names.BEST, state.best, 0 if best is None else best + 1),
    ):
        if epochs and epochs not in archives:
            checkpoint = assemble(
                cfg,
                data,
                snapshot,
                0,
                epochs=epochs,
                steps_per_epoch=steps,
                wall_times=state.wall_times,
                monitored=[row[cfg.monitor] for row in history[: epochs - 1]],
            )
            archives[epochs] = archive(checkpoint)
        if epochs:
            files[name] = archives[epochs]
    return files


def _events(
    cfg: Config, data: Prepared, state: TrainingState, end: Conclusion, hparams: Mapping[str, Hparam]
) -> list[Event]:
    record, wall_times = state.record, state.wall_times
    events = run_events(
        record.history,
        hparams,
        end.metrics,
        end.status,
        wall_times,
        final_epoch=end.epoch,
        note=end.message or "",
        layer_rows=record.layer_rows,
        titles=curve_titles(cfg.metric_names, data.num_classes, cfg.loss_function.name),
    )
    if record.confusion:
        events.append(confusion_table(record.confusion, data.class_names, wall_times[-1], end.epoch or 0))
    return events


def _written_in_training(cfg: Config, directory: Path) -> dict[str, bytes]:
    """The file of weights by epoch; none if the key was set after the training."""
    if cfg.tracking.weights is None:
        return {}
    name = file_names.WEIGHTS_BY_EPOCH
    try:
        return {name: safe_files.read_bytes(directory / name, run_directory.MAX_FILE, follow=False)}
    except FileNotFoundError:
        return {}


def _write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files, by path, into an existing directory; those in subdirectories first."""
    folders: dict[str, dict[str, bytes]] = {}
    for path, content in files.items():
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, {})[name] = content
    atomic_files.make_directory((directory / file_names.LAST).parent)
    for folder in sorted(folders, reverse=True):
        atomic_files.write_all(directory / folder, folders[folder])


def run_entry(
    cfg: Config, data: Prepared, state: TrainingState, overrides: Sequence[str]
) -> tuple[Result, dict[str, str]]:
    """The result of a run, and for the sweep's table the small files that its directory would have held."""
    files = _tables(state)
    result = _result(cfg, data, state, conclude(cfg, data, state.record), {})
    files[file_names.OVERRIDES] = run_table.overrides_text(overrides)
    return result, files | {file_names.RESULT: run_directory.result_json(result)}


def tested_weights(cfg: Config, data: Prepared, state: TrainingState) -> Weights | None:
    """The checkpoint that the run was tested with, without its optimizer; None where no epoch was finished."""
    is_last, best = cfg.test_weights == "last", state.record.progress.best_epoch
    epochs = len(state.record.history) if is_last else 0 if best is None else best + 1
    if not epochs:
        return None
    snapshot = state.last if is_last else state.best
    content = archive(network_only(cfg, data, snapshot, 0, epochs=epochs, wall_times=state.wall_times))
    return Weights(file_names.LAST if is_last else file_names.BEST, content)


@lru_cache(maxsize=64)
def _seconds(fit: float) -> dict[str, float]:
    """One object for all runs of a stack, which get equal shares of its time."""
    return {"fit": fit, "total": fit}


def _tables(state: TrainingState) -> dict[str, str]:
    record = state.record
    files = {file_names.METRICS: run_directory.metrics_csv(record.history)}
    if record.layer_rows:
        files[file_names.LAYERS] = run_directory.layers_csv(record.layer_rows)
    if record.test_hits:
        files[file_names.TEST_HITS] = record.test_hits
    return files


def _checksums(files: Mapping[str, bytes]) -> dict[str, dict[str, int | str]]:
    checksum = ByObject(run_directory.checksum)  # the last checkpoint is often the best one, too
    return {name: dict(checksum(content)) for name, content in files.items()}


def _result(cfg: Config, data: Prepared, state: TrainingState, end: Conclusion, files: Mapping[str, bytes]) -> Result:
    return result_of(
        cfg,
        data,
        state.record,
        end,
        seconds=_seconds(state.seconds),
        threads=cfg.stack_threads,
        engine=cfg.stack.engine,
        num_parameters=cfg.model.network(data.num_inputs, data.num_classes).num_parameters,
        files=_checksums(files),
    )
