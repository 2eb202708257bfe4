"""A stacked run's directory: the files that a run alone would have left, each written once."""

from collections.abc import Mapping
from pathlib import Path

from mlpexp import atomic, checkpoints, provenance, runs
from mlpexp.chosen import chosen
from mlpexp.conclusion import conclude
from mlpexp.models.stack import StackModule
from mlpexp.runs import Result
from mlpexp.sweep.checkpoint import assemble
from mlpexp.tracking.hparams import Hparam
from mlpexp.tracking.records import encode, file_name
from mlpexp.tracking.run import run_events


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
    end = conclude(cfg, record.history, record.progress, record.tested)
    wall_times = module.wall_times[: len(record.history) + 1]
    files: dict[str, bytes] = {runs.METRICS: runs.metrics_csv(record.history).encode()}
    if record.layer_rows:
        files[runs.LAYERS] = runs.layers_csv(record.layer_rows).encode()
    steps = -(-len(data.split.train) // cfg.data.batch_size)
    best = record.progress.best_epoch
    for name, snapshot, epochs in (
        (runs.LAST, module.last, len(record.history)),
        (runs.BEST, module.best, 0 if best is None else best + 1),
    ):
        if epochs:
            checkpoint = assemble(
                cfg,
                data,
                record,
                snapshot,
                run,
                epochs=epochs,
                finished=name == runs.LAST,
                steps_per_epoch=steps,
                wall_times=wall_times,
            )
            files[name] = checkpoints.to_bytes(checkpoint)
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
        files[file_name(wall_times[0])] = encode(events)
    (directory / runs.LAST).parent.mkdir(exist_ok=True)
    for name, content in files.items():
        atomic.write(directory / name, content)
    result = Result(
        status=end.status,
        metrics=end.metrics,
        objective=record.progress.best_value,
        monitor=cfg.monitor,
        epoch=end.epoch,
        epochs=len(record.history),
        identity=runs.identity(cfg, data.digest),
        data_digest=data.digest,
        seconds=dict(seconds),
        versions=provenance.versions(),
        git_commit=provenance.git_commit(),
        message=end.message,
        num_parameters=sum((a + 1) * b for a, b in zip(module.sizes, module.sizes[1:], strict=False)),
        files={name: runs.checksum(content) for name, content in files.items()},
    )
    runs.write_result(directory, result)
    return result
