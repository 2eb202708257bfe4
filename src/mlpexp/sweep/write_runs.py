"""A stacked run's directory: the files that a run alone would have left, each written once."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlpexp.config.hparams import chosen
from mlpexp.models.stack_module import StackModule
from mlpexp.runtime import software_versions
from mlpexp.store import atomic_files, checkpoint_files, file_names, run_directory
from mlpexp.store.identity import identity
from mlpexp.store.run_directory import Result
from mlpexp.sweep.stack_checkpoints import assemble
from mlpexp.tracking.confusion_text import confusion_table
from mlpexp.tracking.event_files import encode, file_name
from mlpexp.tracking.run_events import run_events
from mlpexp.tracking.session_events import Hparam
from mlpexp.training.final_status import Conclusion, conclude


def write_run(
    module: StackModule,
    run: int,
    directory: Path,
    seconds: Mapping[str, float],
    hparams: Mapping[str, Hparam] | None = None,
) -> Result:
    """Write everything of row `run` of a trained stack; the marker comes last.

    Args:
        directory: exists; holds what Hydra writes.
        seconds: this run's share of the stack's time.
        hparams: its row of TensorBoard's HParams page.
    """
    cfg, data, record = module.configs[run], module.data[run], module.records[run]
    end = _end(module, run)
    wall_times = module.times(run)
    files = {name: text.encode() for name, text in _tables(module, run).items()}
    steps = -(-len(data.split.train) // cfg.data.batch_size)
    best = record.progress.best_epoch
    for name, snapshot, epochs in (
        (file_names.LAST, module.last, len(record.history)),
        (file_names.BEST, module.best, 0 if best is None else best + 1),
    ):
        if epochs:
            checkpoint = assemble(
                cfg,
                data,
                record,
                snapshot,
                run,
                epochs=epochs,
                finished=name == file_names.LAST and not record.left,
                steps_per_epoch=steps,
                wall_times=wall_times,
            )
            files[name] = checkpoint_files.to_bytes(checkpoint)
    if cfg.tracking.tensorboard:
        events = run_events(
            record.history,
            hparams or chosen(cfg),
            end.metrics,
            end.status,
            wall_times,
            final_epoch=end.epoch,
            note=end.message or "",
            layer_rows=record.layer_rows,
        )
        if record.confusion:
            events.append(confusion_table(record.confusion, data.class_names, wall_times[-1], end.epoch or 0))
        files[file_name(wall_times[0])] = encode(events)
    (directory / file_names.LAST).parent.mkdir(exist_ok=True)
    for name, content in files.items():
        atomic_files.write(directory / name, content)
    result = _result(module, run, seconds, files)
    run_directory.write_result(directory, result)
    return result


def run_entry(
    module: StackModule, run: int, overrides: Sequence[str], seconds: Mapping[str, float]
) -> tuple[Result, dict[str, str]]:
    """The result of row `run`, and for the sweep's journal the small files that its directory would have held."""
    files = _tables(module, run)
    result = _result(module, run, seconds, {})
    listed = "".join(f"- {json.dumps(item)}\n" for item in overrides)  # JSON is YAML
    return result, files | {file_names.OVERRIDES: listed, file_names.RESULT: run_directory.result_json(result)}


def _end(module: StackModule, run: int) -> Conclusion:
    record = module.records[run]
    data = module.data[run]
    counts, weights = data.class_counts(), data.description.class_weights
    cfg, progress = module.configs[run], record.progress
    return conclude(cfg, record.history, progress, record.tested, counts, weights, left=record.left)


def _tables(module: StackModule, run: int) -> dict[str, str]:
    record = module.records[run]
    files = {file_names.METRICS: run_directory.metrics_csv(record.history)}
    if record.layer_rows:
        files[file_names.LAYERS] = run_directory.layers_csv(record.layer_rows)
    return files


def _result(module: StackModule, run: int, seconds: Mapping[str, float], files: Mapping[str, bytes]) -> Result:
    cfg, data, record = module.configs[run], module.data[run], module.records[run]
    end = _end(module, run)
    return Result(
        status=end.status,
        metrics=end.metrics,
        objective=record.progress.best_value,
        monitor=cfg.monitor,
        epoch=end.epoch,
        epochs=len(record.history),
        identity=identity(cfg, data.digest),
        data_digest=data.digest,
        seconds=dict(seconds),
        versions=software_versions.versions(),
        git_commit=software_versions.git_commit(),
        message=end.message,
        num_parameters=sum((a + 1) * b for a, b in zip(module.sizes, module.sizes[1:], strict=False)),
        files={name: run_directory.checksum(content) for name, content in files.items()},
    )
