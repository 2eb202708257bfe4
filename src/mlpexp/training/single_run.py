"""Trains one run alone, from a typed configuration to a run's directory."""

import logging
import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar

from mlpexp import models
from mlpexp.config.hparams import chosen
from mlpexp.config.schema import Config
from mlpexp.data.datamodule import TableDataModule
from mlpexp.nn import chance_level
from mlpexp.nn.metric_columns import PARTS, columns
from mlpexp.runtime import signals
from mlpexp.runtime.errors import Interrupted, UserError, described, first_line
from mlpexp.store import (
    atomic_files,
    checkpoint_files,
    directory_checks,
    directory_lock,
    file_names,
    run_directory,
    test_hits,
)
from mlpexp.store.run_directory import Result
from mlpexp.tracking.event_files import EventLog, carried_over
from mlpexp.tracking.run_events import Hparam, curve_titles, end_events, start_events
from mlpexp.training import recorded_history, resume
from mlpexp.training.final_status import Conclusion, conclude, result_of
from mlpexp.training.lightning_logger import RunLogger
from mlpexp.training.recorder import DeferredCheckpointIO, Recorder
from mlpexp.training.resume import Continued
from mlpexp.training.trainer_setup import epoch_callbacks, instances, on_this_machine, own_callbacks, quiet

log = logging.getLogger(__name__)
FILES = [file_names.METRICS, file_names.LAYERS, file_names.TEST_HITS, file_names.LAST, file_names.BEST]


def train(
    cfg: Config,
    directory: Path,
    *,
    bar: Callback | None = None,
    hparams: Mapping[str, Hparam] | None = None,
    continued: Continued | None = None,
) -> Result:
    """Train `cfg` and write a complete run directory.

    Args:
        bar: shows progress.
        hparams: the run's row of TensorBoard's HParams page; by default what differs from the defaults, and a few more.
        continued: the run that is continued in the directory.

    Raises:
        UserError: the directory is in use, or the accelerator is not there.
        Interrupted: stopped by a signal; what was reached is kept and marked as interrupted.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # the given directory may be a link; below it none is followed
    directory = directory.resolve() if directory.is_symlink() else directory
    with ExitStack() as stack:
        stack.enter_context(directory_lock.hold(directory))
        if continued is None:
            directory_checks.check_unused(directory)
        for context in (signals.interruptible(), _torch_threads(cfg.threads), quiet()):
            stack.enter_context(context)
        run = _Run(cfg, directory, bar, hparams, continued)
        if run.events is not None:
            stack.enter_context(run.events)
        return run.train()


class _Run:
    """Attributes:
    replaced: the files of the run that is continued have begun to change.
    """

    def __init__(
        self,
        cfg: Config,
        directory: Path,
        bar: Callback | None,
        hparams: Mapping[str, Hparam] | None,
        continued: Continued | None,
    ) -> None:
        self.cfg, self.directory, self.bar, self.hparams, self.continued = cfg, directory, bar, hparams, continued
        self.started = time.time()
        self.replaced = False
        self.data = TableDataModule(cfg.data, cfg.seed)
        self.data.setup()
        prepared = self.data.prepared
        self.module = models.build(cfg, prepared.num_inputs, prepared.num_classes, prepared.description)
        self.callbacks = own_callbacks(cfg)
        self.events = EventLog(directory, self.started, hidden=continued is not None) if cfg.writes_events else None
        self.io = DeferredCheckpointIO(directory)
        self.recorder = Recorder(cfg, directory, self.events, self.io, callbacks=epoch_callbacks(self.callbacks))

    def train(self) -> Result:
        try:
            trainer = self._trainer()
        except BaseException:
            if self.events is not None:
                self.events.discard()  # nothing has begun
            raise
        self._open()
        last = self.directory / file_names.LAST if self.continued else None
        if last is not None:  # Lightning loads a checkpoint before it converts the module, which would round float64
            trainer.precision_plugin.convert_module(self.module)
        fit_started = time.perf_counter()
        fit_s = math.nan
        recorder = self.recorder
        try:
            trainer.fit(self.module, self.data, ckpt_path=last, weights_only=True)
            fit_s = time.perf_counter() - fit_started
            if trainer.world_size > 1:  # trained by processes that have ended; what they wrote is in the directory
                recorder.begin(*recorded_history.read_tables(self.directory))
            if not recorder.record.history:
                raise UserError("training stopped before its first epoch was done; allow it more steps or time")
            self._replace()
            recorder.record.tested = self._test(trainer)
            end = conclude(self.cfg, self.data.prepared, recorder.record)
            self._draw()
        except BaseException as error:
            _end_ranks(trainer)
            if self.continued and not (self.replaced or recorder.has_unwritten):
                raise  # the run stays as it was
            status: run_directory.Status = "interrupted" if isinstance(error, Interrupted) else "failed"
            recorder.record.tested = {}
            so_far = conclude(self.cfg, self.data.prepared, recorder.record)
            message = first_line(error) if isinstance(error, UserError | Interrupted) else described(error)
            fit_s = fit_s if math.isfinite(fit_s) else time.perf_counter() - fit_started
            self._replace()
            self._finish(so_far._replace(status=status, message=message), fit_s)
            raise
        _warn_of(end)
        return self._finish(end, fit_s)

    def _open(self) -> None:
        """Write the beginning of the event file, with the earlier curves of a continued run."""
        continued = self.continued
        if continued:
            self.recorder.started = continued.started
            self.recorder.begin(continued.history, continued.layer_rows)
            self.module.begin(continued.history)
            self.recorder.before_writing = self._replace
        if self.events is not None:
            self.events.add(
                *start_events(
                    self.hparams or chosen(self.cfg),
                    self.recorder.started,
                    curve_titles(self.cfg.metric_names, self.module.network.sizes[-1], self.cfg.loss_function.name),
                )
            )
            if continued:
                self.events.add(*carried_over(self._earlier_events(), continued.saved_at))
            self.events.flush()

    def _engine(self) -> str:
        """The engine that has trained the run; both, in their order, if it was begun in a stack."""
        earlier = self.continued.engine if self.continued else "torch"
        return "torch" if earlier == "torch" else f"{earlier}, then torch"

    def _replace(self) -> None:
        """Mark a continued run as interrupted, before its first file is replaced."""
        if self.continued is None or self.replaced:
            return
        directory, earlier = self.directory, self._earlier_events()
        if (directory / file_names.RESULT).exists():
            message = f"is being trained further, to {self.cfg.trainer.max_epochs} epochs; resume it to complete that"
            result = run_directory.read_result(directory)
            run_directory.write_result(directory, replace(result, status="interrupted", message=message, files={}))
        self.replaced = True
        resume.record_epochs(directory, self.cfg.trainer.max_epochs)
        if self.events is not None:
            self.events.publish()
        for path in [*earlier, directory / file_names.TEST_HITS]:
            path.unlink(missing_ok=True)

    def _earlier_events(self) -> list[Path]:
        current = self.events.path if self.events is not None else None
        return [path for path in sorted(self.directory.glob(file_names.EVENTS)) if path != current]

    def _trainer(self) -> Trainer:
        cfg = self.cfg
        flags: dict[str, Any] = {
            "devices": 1,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,  # the first epoch's validation comes soon enough
            "inference_mode": True,
        }
        flags |= cfg.trainer.flags
        plugins = flags.pop("plugins", None) or []
        callbacks = [callback for callback in self.callbacks.values() if isinstance(callback, Callback)]
        has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        bars = [self.bar] if self.bar and not has_bar else []
        return Trainer(
            max_epochs=cfg.trainer.max_epochs,
            accelerator=cfg.trainer.accelerator,
            enable_progress_bar=has_bar,  # ours is an ordinary callback
            logger=[RunLogger(self.directory, self.events, self._columns()), *instances("logger", cfg.logger)],
            callbacks=[self.recorder, *bars, *callbacks],
            plugins=[self.io, *on_this_machine(plugins)],
            default_root_dir=self.directory,
            **flags,
        )

    def _test(self, trainer: Trainer) -> dict[str, float]:
        """Test metrics of the weights that `test_weights` names; the module holds them afterwards."""
        best = self.cfg.test_weights == "best" and self.recorder.record.progress.best_epoch is not None
        if best or self.recorder.in_epoch:
            path = self.directory / (file_names.BEST if best else file_names.LAST)
            self.module.load_state_dict(checkpoint_files.load(path)["state_dict"])
        if len(self.data.prepared.split.test) == 0:
            return {}
        if trainer.world_size > 1:  # testing is short, so no processes are started for it
            trainer = Trainer(
                accelerator=self.cfg.trainer.accelerator,
                devices=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                plugins=on_this_machine(),
            )
        trainer.test(self.module, self.data, verbose=False)
        self._write_hits()
        return {name: value for name, value in self.module.metrics.items() if name.startswith("test/")}

    def _write_hits(self) -> None:
        if not self.cfg.tracking.test_hits:
            return
        outcomes, prepared = self.module.outcomes("test"), self.data.prepared
        hits = (outcomes.classes() == outcomes.labels).cpu().numpy()
        path = self.directory / file_names.TEST_HITS
        atomic_files.write(path, test_hits.encode(hits, prepared.split.test, len(prepared.labels)))

    def _columns(self) -> tuple[str, ...]:
        return columns(*PARTS, names=self.cfg.metric_names, num_outputs=self.module.network.sizes[-1])

    def _draw(self) -> None:
        if self.cfg.tracking.figures:
            from mlpexp.training import run_figures  # matplotlib: late, a run without figures does without it

            run_figures.draw(self.module, self.data.prepared, self.recorder.record, self.directory, self.events)

    def _finish(self, end: Conclusion, fit_s: float) -> Result:
        """Write the last files, the marker at the very end."""
        directory = self.directory
        possible = [*FILES, file_names.WEIGHTS_BY_EPOCH] if self.cfg.tracking.weights is not None else FILES
        names = [name for name in possible if (directory / name).exists()]
        if self.events is not None:
            self.events.add(*end_events(end.epoch or 0, end.metrics, end.status, time.time(), note=end.message or ""))
            self.events.close()
            names.append(self.events.path.name)
        result = result_of(
            self.cfg,
            self.data.prepared,
            self.recorder.record,
            end,
            seconds={"fit": fit_s, "total": time.time() - self.started} | self.recorder.seconds_per_epoch(),
            threads=self.cfg.threads,
            engine=self._engine(),
            num_parameters=self.module.network.num_parameters,
            files=run_directory.checksums(directory, names),
        )
        run_directory.write_result(directory, result)
        return result


def _warn_of(end: Conclusion) -> None:
    if end.status == "diverged":
        log.warning("%s; another optimizer.lr may help", end.message)
    elif end.status == "chance":
        log.warning("%s; %s", end.message, chance_level.LIKELY_CAUSES)
    elif end.status == "ok" and end.message:
        log.warning("%s", end.message)


def _end_ranks(trainer: Trainer) -> None:
    """Kill the other processes of a data-parallel training: Lightning does not wait for them after an error."""
    launcher = trainer.strategy.launcher
    if trainer.world_size > 1 and launcher is not None:
        launcher.kill(signal.SIGKILL)


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    """Limit torch's threads: a run alone gains little from many, and loses much on a busy machine."""
    previous = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(previous)
