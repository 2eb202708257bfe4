"""Reads the state of a run that has ended after fewer epochs, to train it further in a stack or alone.

The opposite of `stack_run_files`: the state of training comes from the run's checkpoints and tables, whose checksums
are those of its marker, and every tensor is checked against the run's configuration. A shorter run that is damaged is
set aside.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import filter as matching
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlpexp.config.overrides import parse
from mlpexp.config.schema import Config
from mlpexp.data.data_config import FILE_KEYS
from mlpexp.data.prepared_data import Prepared
from mlpexp.models.run_average import TRAINING_WEIGHTS
from mlpexp.models.run_pruning import MASKS
from mlpexp.models.training_state import RunRecord, Snapshot, TrainingState
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.optimizers.muon import hidden_matrices
from mlpexp.nn.pruning import MASK, REWOUND
from mlpexp.nn.weight_averaging import AVERAGE
from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError, first_line
from mlpexp.runtime.safe_files import DamagedFile
from mlpexp.store import (
    atomic_files,
    checkpoint_archive,
    checkpoint_files,
    file_names,
    further_training,
    run_directory,
    run_state,
)
from mlpexp.store.identity import identity
from mlpexp.store.run_directory import Result
from mlpexp.store.run_state import SurveyedRun
from mlpexp.tracking.event_files import epoch_times
from mlpexp.training import resume
from mlpexp.training.resume import Continued

log = logging.getLogger(__name__)
_DAMAGED = "%s is trained from its beginning, and what was there is set aside: %s"
_OF_FILES = {f"data.{key}" for key in FILE_KEYS}


def continued_state(
    earlier: SurveyedRun | None, cfg: Config, data: Prepared, directory: Path, sweep: Path
) -> TrainingState | None:
    """The state from which a run continues in a stack; None where it trains from its beginning.

    Args:
        earlier: the shorter run.
        directory: of the longer one.
    """
    if earlier is None or earlier.result is None or not earlier.has_state:
        return None
    if cfg.tracking.diagnostics and file_names.LAYERS not in earlier.result.files:
        return None  # half a history of the layers could not be drawn
    keeps_weights = cfg.tracking.weights is not None
    if keeps_weights and file_names.WEIGHTS_BY_EPOCH not in earlier.result.files:
        return None
    try:
        state = training_state(earlier.directory, earlier.result, cfg, data)
        if keeps_weights:
            weights = read_files(earlier.directory, earlier.result, [file_names.WEIGHTS_BY_EPOCH])
            atomic_files.make_directory(directory, parents=True)
            atomic_files.write(directory / file_names.WEIGHTS_BY_EPOCH, weights[file_names.WEIGHTS_BY_EPOCH])
        return state
    except (UserError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        log.warning(_DAMAGED, earlier.directory, " ".join(str(error).split())[:200])
        if earlier.directory.is_dir():
            run_state.set_aside(earlier, sweep / file_names.SET_ASIDE)
        return None


def continued_alone(
    earlier: SurveyedRun | None, cfg: Config, overrides: Sequence[str], data: Prepared, directory: Path
) -> Continued | None:
    """What a run that trains alone continues from, copied into its directory; None where it trains from its beginning.

    That is so where there is no shorter run, where there is nothing to continue, because it was stopped early, as the
    longer one is, or has diverged, and where Lightning cannot continue it.

    Args:
        earlier, directory: as for `continued_state`.
    """
    if earlier is None or earlier.result is None or not earlier.has_state or earlier.result.status == "diverged":
        return None
    files = dict[str, bytes]()
    texts = [item for item in overrides if parse(item).key in _OF_FILES]
    texts += [f"{further_training.EPOCHS}={cfg.trainer.max_epochs}", f"threads={cfg.threads}"]
    try:
        files = read_files(earlier.directory, earlier.result, earlier.result.files)
        path = earlier.directory / file_names.LAST
        shorter, *_ = checkpoint_files.described(path, _load(path, files[file_names.LAST]))
        stopped = record(earlier.directory, files, cfg).progress.stopped
        if stopped or resume.cannot_be_continued(shorter, earlier.result.epochs, is_done=True):
            return None
        for name, content in files.items():
            atomic_files.make_directory((directory / name).parent)
            atomic_files.write(directory / name, content)
        continued = resume.find(replace(cfg, resume=str(directory)), texts)
        if identity(continued.cfg, data.digest) != identity(cfg, data.digest):
            raise UserError("its configuration is another one than its marker says")
    except (UserError, ValueError, KeyError) as error:
        log.warning(_DAMAGED, earlier.directory, first_line(error))
        for name in files:
            (directory / name).unlink(missing_ok=True)
        if earlier.directory.is_dir():
            run_state.set_aside(earlier, earlier.directory.parent / file_names.SET_ASIDE)
        return None
    tracking = replace(cfg.tracking, diagnostics=cfg.tracking.diagnostics and bool(continued.layer_rows))
    return replace(continued, cfg=replace(cfg, tracking=tracking))


def training_state(directory: Path, result: Result, cfg: Config, data: Prepared) -> TrainingState:
    """The state of a run after its last epoch.

    Args:
        result: of the run in `directory`.
        cfg: of the run, with any number of epochs that is larger.

    Raises:
        UserError: a file cannot be read, or is not what the marker says.
        ValueError: a checkpoint is not one of this run.
    """
    checksums, events = result.files, matching(result.files, file_names.EVENTS)
    one_checkpoint = checksums[file_names.BEST] == checksums[file_names.LAST]
    wanted = [file_names.METRICS, file_names.LAST, *events]
    wanted += [] if one_checkpoint else [file_names.BEST]
    wanted += [file_names.LAYERS] if cfg.tracking.diagnostics and file_names.LAYERS in checksums else []
    contents = read_files(directory, result, wanted)
    recorded = record(directory, contents, cfg)
    epochs = len(recorded.history)
    if epochs != result.epochs:
        raise ValueError(f"it has {epochs} epochs in {file_names.METRICS}, {result.epochs} in its marker")
    network, steps = cfg.model.network(data.num_inputs, data.num_classes), cfg.data.steps(len(data.split.train))
    last = _load(directory / file_names.LAST, contents[file_names.LAST])
    snapshots = [_snapshot(last, cfg, network, epochs, steps)]
    best = recorded.progress.best_epoch
    if best is not None and (best + 1 < epochs or not one_checkpoint):
        loaded = last if one_checkpoint else _load(directory / file_names.BEST, contents[file_names.BEST])
        snapshots.append(_snapshot(loaded, cfg, network, best + 1, steps))
    return TrainingState(
        record=recorded,
        best=snapshots[-1],
        last=snapshots[0],
        wall_times=_wall_times(last, [contents[name] for name in events], epochs),
        seconds=result.seconds["fit"],
    )


def record(directory: Path, files: Mapping[str, bytes], cfg: Config) -> RunRecord:
    """What a run of `cfg` has recorded, from its files.

    Raises:
        UserError: they are not what a run writes.
        KeyError: there are no metrics.
    """
    history = run_directory.parse_metrics(files[file_names.METRICS].decode(), directory / file_names.METRICS)
    rows: list[list[float | str]] = []
    if cfg.tracking.diagnostics and file_names.LAYERS in files:
        rows = run_directory.parse_layers(files[file_names.LAYERS].decode(), directory / file_names.LAYERS)
    return RunRecord.of(cfg, history, rows)


def read_files(directory: Path, result: Result, names: Iterable[str]) -> dict[str, bytes]:
    """Files of a run that its marker lists, by their names.

    Raises:
        UserError: one of them cannot be read, or is not what the marker says.
    """
    contents = {}
    for name in names:
        path, checksum = f"{directory}/{name}", result.files[name]  # a text: pathlib is slow, and there are thousands
        try:
            contents[name] = safe_files.read_bytes(path, run_directory.MAX_FILE, follow=False)
        except FileNotFoundError:
            raise DamagedFile(f"{path} is missing") from None
        if run_directory.checksum(contents[name]) != checksum:
            raise DamagedFile(f"{path} is not what was written: its checksum differs from {file_names.RESULT}'s")
    return contents


def _load(path: Path, content: bytes) -> Mapping[str, Any]:
    if (loaded := checkpoint_archive.read(content)) is not None:
        return loaded
    return checkpoint_files.from_bytes(path, content)  # written by Lightning: of a run alone, or by `resume=`


def _snapshot(loaded: Mapping[str, Any], cfg: Config, network: NetworkSpec, epochs: int, steps: int) -> Snapshot:
    """What a checkpoint after `epochs` holds of a run, with R = 1.

    Raises:
        ValueError: it is another network's, or of another epoch.
    """
    if loaded.get("epoch") != epochs - 1 or loaded.get("global_step") != epochs * steps:
        raise ValueError(f"a checkpoint is not of epoch {epochs - 1}")
    weights = loaded.get(TRAINING_WEIGHTS, loaded["state_dict"])
    parameters = {name: _row(weights[name], shape) for name, shape in network.tensors.items()}
    shapes, matrices = list(network.shapes.items()), hidden_matrices(network)
    rule, states = OPTIMIZERS[cfg.optimizer.name], loaded["optimizer_states"][0]["state"]
    derived = {"step", *rule.further_state(cfg.optimizer, 0)}
    state: dict[str, list[Tensor]] = {}
    for i, (parameter, shape) in enumerate(shapes):
        for name in rule.state_of_parameter(cfg.optimizer, parameter in matrices):
            if name not in derived:
                # of a parameter that has no such state the zeros stay, which nothing reads
                state.setdefault(name, [torch.zeros(1, *size) for _, size in shapes])[i] = _row(states[i][name], shape)
    if cfg.uses_average(epochs - 1):
        state[AVERAGE] = _rows(loaded["state_dict"], shapes)
    if cfg.prune.fraction is not None:
        masks = loaded[MASKS]
        state[MASK] = [
            _row(masks[name], shape) if name in network.weight_names else torch.ones(1, *shape)
            for name, shape in shapes
        ]
    if cfg.rewound_epochs is not None and epochs > cfg.rewound_epochs:
        state[REWOUND] = _rows(loaded[REWOUND], shapes)
    return Snapshot(parameters, state)


def _rows(tensors: Mapping[str, Any], shapes: Sequence[tuple[str, tuple[int, ...]]]) -> list[Tensor]:
    return [_row(tensors[name], shape) for name, shape in shapes]


def _row(tensor: Any, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
        raise ValueError(f"a tensor of shape {shape} was expected")
    return tensor.unsqueeze(0)


def _wall_times(last: Mapping[str, Any], events: Iterable[bytes], epochs: int) -> list[float]:
    """Seconds since 1970: the start of the run, then the end of each epoch; without events they are evenly spaced."""
    recorded = last["callbacks"]["Recorder"]
    started, ended = float(recorded["started"]), float(recorded["saved_at"])
    times: dict[int, float] = {}
    for content in events:
        times |= epoch_times(content)
    return [started, *(times.get(i, started + (ended - started) * (i + 1) / epochs) for i in range(epochs))]
