"""What the estimators share: fitting by the engines of stacks, and the outputs of the trained network.

Letters: N samples, I inputs, C outputs: classes, or values.
"""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from mlpexp.api.estimators.estimator_settings import LARGEST_BATCH, EstimatorSettings
from mlpexp.api.estimators.given_arrays import given_arrays
from mlpexp.api.estimators.stacked_fits import Fit, TrainedNetwork, train_now_or_later
from mlpexp.config.field_types import MAX_SEED
from mlpexp.config.schema import Config
from mlpexp.data.splits import Split
from mlpexp.models.training_state import RunRecord, Snapshot, TrainingState
from mlpexp.nn.early_stopping import Progress
from mlpexp.nn.losses import Task
from mlpexp.nn.network import NetworkSpec, forward

MAX_NUMBERS = 2**24  # in one tensor of a forward pass, 128 MiB
UNFINISHED = "epochs ended before the training stopped improving"


class NetworkEstimator(BaseEstimator):
    """A multilayer perceptron as an estimator of scikit-learn; a subclass says what is predicted."""

    _task: Task
    _network: NetworkSpec
    _weights: dict[str, NDArray[np.float32]]
    _optimizer_state: dict[str, list[Tensor]]
    _num_steps: int
    loss_curve_: list[float]
    t_: int

    def _fit(
        self,
        X: NDArray[np.float32],
        targets: NDArray[Any],
        sample_weight: ArrayLike | None,
        *,
        num_classes: int,
        partial: bool,
    ) -> None:
        """Train on checked inputs and targets.

        Args:
            X: (N, I) float32.
            targets: classes (N,), or values (N, T).
            num_classes: 0 for values.
            partial: one epoch more, with the optimizer's state.
        """
        settings = EstimatorSettings.of(self.get_params(deep=False))
        continues = partial or bool(self.warm_start)
        state = self._state(X.shape[1], num_classes or targets.shape[1], partial) if continues else None
        if partial:
            if settings.early_stopping:
                raise ValueError("partial_fit does not support early_stopping=True; leave it out")
            if settings.learning_rate != "constant":
                raise ValueError(
                    f"partial_fit does not support learning_rate={settings.learning_rate!r}, which depends on the "
                    "number of epochs; choose 'constant'"
                )
        seed = self._seed()
        weights = _checked_weights(sample_weight, X)
        split = self._split(settings, targets, seed)
        class_weights = self._class_weights(targets, num_classes, split.train)
        by_sample = np.ones(len(X)) if weights is None else weights
        if class_weights is not None:
            by_sample = by_sample * np.asarray(class_weights)[targets]
        total = float(by_sample[split.train].mean())
        if not total > 0:
            raise ValueError("the weights of all training samples are 0; give some a positive weight")
        size = len(split.train)
        batch = min(size, LARGEST_BATCH if settings.batch_size == "auto" else settings.batch_size)
        cfg = settings.config(
            self._task, seed, batch_size=batch, batch_weight=batch * total, weighted=weights is not None
        )
        self._train(
            Fit(
                cfg=_one_epoch(cfg, state) if partial else cfg,
                data=given_arrays(
                    X,
                    targets,
                    split,
                    num_classes=num_classes,
                    class_weights=class_weights,
                    sample_weights=weights,
                ),
                settings=repr(settings),
                seeded=self.random_state is not None,
                state=state,
                keeps_state=partial,
                takes_best=settings.early_stopping,
            ),
            settings,
        )

    def _train(self, fit: Fit, settings: EstimatorSettings) -> None:
        if hasattr(self, "_weights"):
            del self._weights
        trained = train_now_or_later(fit)
        if trained is None:  # recorded
            return
        if not all(np.isfinite(values).all() for values in trained.weights.values()):
            raise ValueError(
                f"the training has diverged: weights are not finite with learning_rate_init="
                f"{settings.learning_rate_init}; choose a smaller one, or scale the data, e.g. by StandardScaler"
            )
        self._take(trained, fit, settings)

    def _take(self, trained: TrainedNetwork, fit: Fit, settings: EstimatorSettings) -> None:
        """The attributes of a fitted estimator."""
        record, self._network, self._weights = trained.record, trained.network, trained.weights
        rows = record.history[0 if fit.state is None else len(fit.state.record.history) :]
        losses, samples = [row["train/loss"] for row in rows], len(rows) * len(fit.data.split.train)
        if fit.keeps_state and fit.state is not None:
            losses, samples = [*self.loss_curve_, *losses], self.t_ + samples
        self.loss_curve_, self.n_iter_, self.t_ = losses, len(losses), samples
        self._optimizer_state, self._num_steps = trained.optimizer_state, trained.num_steps
        self.loss_ = self.loss_curve_[-1]
        self.best_loss_ = None if settings.early_stopping else min(self.loss_curve_)
        self.validation_scores_ = [row[fit.cfg.monitor] for row in rows] if settings.early_stopping else None
        self.best_validation_score_ = max(self.validation_scores_) if self.validation_scores_ else None
        self.n_layers_ = len(trained.network.sizes)
        self.n_outputs_ = trained.network.sizes[-1]
        self.coefs_ = [self._weights[name].T for name in trained.network.weight_names]
        self.intercepts_ = [self._weights[trained.network.names[k]["bias"]] for k, _ in trained.network.linear]
        if trained.is_unfinished:
            warnings.warn(
                f"max_iter={settings.max_iter} {UNFINISHED}; choose more, or a larger tol",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _outputs(self, X: Any) -> NDArray[np.float64]:
        """The network's outputs, (N, C), in double precision, so that they do not depend on the number of samples."""
        check_is_fitted(self)
        checked = validate_data(self, X, accept_sparse="csr", dtype=(np.float64, np.float32), reset=False)
        inputs = torch.from_numpy(as_float32(checked))
        weights = {name: torch.from_numpy(values).double().unsqueeze(0) for name, values in self._weights.items()}
        size = max(1, MAX_NUMBERS // max(self._network.sizes))
        with torch.inference_mode():
            batches = [
                forward(self._network, weights, batch.double().unsqueeze(0)).logits[0] for batch in inputs.split(size)
            ]
        outputs: NDArray[np.float64] = torch.cat(batches).numpy()
        return outputs

    def _split(self, settings: EstimatorSettings, targets: NDArray[Any], seed: int) -> Split:
        """The training part and, for early stopping, a validation part."""
        samples = np.arange(len(targets))
        if not settings.early_stopping:
            return Split(samples, samples[:0], samples[:0])
        train, val = train_test_split(
            samples,
            test_size=settings.validation_fraction,
            random_state=seed,
            stratify=targets if self._task == "classification" else None,
        )
        if len(val) < 2:
            raise ValueError(
                f"validation_fraction={settings.validation_fraction} of {len(targets)} samples is less than two; "
                "choose a larger one, or leave early_stopping out"
            )
        return Split(np.sort(train), np.sort(val), samples[:0])

    def _class_weights(self, targets: NDArray[Any], num_classes: int, train: NDArray[np.int64]) -> list[float] | None:
        return None

    def _seed(self) -> int:
        state = self.random_state
        if isinstance(state, int | np.integer) and 0 <= state <= MAX_SEED:
            return int(state)
        return int(check_random_state(state).randint(2**31 - 1))

    def _state(self, num_inputs: int, num_outputs: int, partial: bool) -> TrainingState | None:
        """From which `warm_start` and `partial_fit` go on; None before the first fit.

        Raises:
            ValueError: the network has other layers than before.
        """
        if not hasattr(self, "_weights"):
            return None
        settings = EstimatorSettings.of(self.get_params(deep=False))
        cfg = settings.config(self._task, 0, batch_size=1, batch_weight=1.0, weighted=False)
        if cfg.model.network(num_inputs, num_outputs) != self._network:
            raise ValueError(
                f"the network that was fitted before has the layers {self._network.sizes}, and now other ones are "
                "wanted; leave warm_start out, or fit a new estimator"
            )
        weights = {name: torch.from_numpy(values).unsqueeze(0) for name, values in self._weights.items()}
        record = RunRecord(Progress.of(cfg.monitor, cfg.early_stopping))
        if not partial:
            return TrainingState(record=record, best=Snapshot(weights, {}), last=Snapshot(weights, {}), wall_times=[])
        record.history = [{cfg.monitor: loss} for loss in self.loss_curve_]
        snapshot = Snapshot(weights, self._optimizer_state)
        return TrainingState(record=record, best=snapshot, last=snapshot, wall_times=[], num_steps=self._num_steps)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_weights")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _one_epoch(cfg: Config, state: TrainingState | None) -> Config:
    """The same for one epoch after those of the state."""
    epochs = 1 if state is None else len(state.record.history) + 1
    return replace(
        cfg, trainer=replace(cfg.trainer, max_epochs=epochs), early_stopping=replace(cfg.early_stopping, patience=None)
    )


def _checked_weights(weights: ArrayLike | None, X: NDArray[np.float32]) -> NDArray[np.float64] | None:
    if weights is None:
        return None
    checked: NDArray[np.float64] = _check_sample_weight(weights, X, dtype=np.float64, ensure_non_negative=True)
    return checked


def as_float32(X: Any) -> NDArray[np.float32]:
    """As the engines compute; dense.

    Raises:
        ValueError: a number is too large.
    """
    with np.errstate(over="ignore"):
        values = np.array(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float32, order="C")
    if not np.isfinite(values).all():
        raise ValueError("X has numbers that single precision cannot hold; scale it, e.g. by StandardScaler")
    return values
