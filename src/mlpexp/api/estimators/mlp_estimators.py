"""`MLPClassifier` and `MLPRegressor`: scikit-learn's interface, trained by the engines of stacks.

Letters: N samples, I inputs, C classes, T targets.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from mlpexp.api.estimators.network_estimator import NetworkEstimator, as_float32
from mlpexp.api.estimators.stacked_fits import record_call


class MLPClassifier(ClassifierMixin, NetworkEstimator):
    """A network for classes, with the parameters and attributes of `sklearn.neural_network.MLPClassifier`.

    Training is in single precision and minimises the cross-entropy of a softmax. Inputs are not scaled: put a
    `StandardScaler` before it. It stops where the mean loss of the samples in an epoch, before each step, has not
    become smaller by `tol` for more than `n_iter_no_change` epochs.

    Args:
        hidden_layer_sizes: units of each hidden layer; () is a linear classifier.
        activation: a name that `model.activation` has, or "logistic".
        solver: a name that `optimizer.name` has, but not "lbfgs".
        alpha: of the L2 penalty of weight matrices; for adamw, lion and muon their weight decay.
        batch_size: samples per step; "auto": 200, or all where there are fewer.
        learning_rate: a name that `optimizer.schedule` has, or "adaptive": divided by 5 where the loss stops improving.
        learning_rate_init: the learning rate.
        max_iter: epochs at most.
        shuffle: a new order of the samples each epoch.
        random_state: a seed; the same as `seed` elsewhere in mlpexp. None: drawn from numpy's global generator.
        tol, n_iter_no_change: when the training stops; `n_iter_no_change=numpy.inf`: after `max_iter` epochs.
        warm_start: `fit` goes on from the weights of the last one.
        momentum, nesterovs_momentum: of sgd and muon.
        early_stopping: the weights are those of the best epoch by the accuracy on a stratified share of the samples,
            `validation_fraction`, which are not trained on; it determines the end, too.
        beta_1, beta_2, epsilon: of adam, adamw, nadam and muon.
        norm, dropout, init: as `model.norm`, `model.dropout` and `model.init`.
        model_options: of your own activation or initialiser from a plugin, by name, as the keys `model.options`.
        optimizer_options: of your own optimizer or schedule, as the keys `optimizer.options`.
        class_weight: None, "balanced" or a mapping from classes to weights in the training loss.

    Attributes:
        classes_: (C,), sorted.
        coefs_, intercepts_: of each dense layer, (inputs, outputs) and (outputs,).
        loss_curve_, n_iter_: the training loss of each epoch, before each step; the number of epochs.
        validation_scores_: with `early_stopping`, the accuracy after each epoch.

    Other attributes are those of scikit-learn: `loss_`, `best_loss_`, `best_validation_score_`, `t_`, `n_layers_`,
    `n_outputs_`, `out_activation_`, `n_features_in_`, `feature_names_in_`.
    """

    _task = "classification"
    classes_: NDArray[Any]

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        norm: str = "none",
        dropout: float = 0.0,
        init: str = "xavier_uniform",
        model_options: Mapping[str, Any] | None = None,
        optimizer_options: Mapping[str, Any] | None = None,
        class_weight: Any = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.norm = norm
        self.dropout = dropout
        self.init = init
        self.model_options = model_options
        self.optimizer_options = optimizer_options
        self.class_weight = class_weight

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train from new weights, or with `warm_start` from those that there are.

        Args:
            X: (N, I), an array, DataFrame or sparse matrix.
            y: classes, (N,).
            sample_weight: in the training loss, (N,).

        Raises:
            ValueError: the parameters or data cannot be, or the training has diverged.
        """
        record_call(self, X, y, sample_weight)
        X, y = self._checked(X, y, reset=True)
        classes, targets = np.unique(y, return_inverse=True)
        if self.warm_start and hasattr(self, "_weights") and not np.array_equal(classes, self.classes_):
            raise ValueError(f"warm_start needs the classes of the first fit, {self.classes_}, and y has {classes}")
        self.classes_ = classes
        self._fit(X, targets, sample_weight, num_classes=len(classes), partial=False)
        self.out_activation_ = "softmax"
        return self

    def partial_fit(
        self, X: Any, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train one epoch more on these samples.

        Args:
            classes: all that there will be; needed in the first call.
        """
        is_first_call = not hasattr(self, "classes_")
        if is_first_call and classes is None:
            raise ValueError("the first call of partial_fit needs classes, e.g. classes=numpy.unique(y)")
        X, y = self._checked(X, y, reset=is_first_call)
        if is_first_call:
            self.classes_ = np.unique(np.asarray(classes))
        elif classes is not None and not np.array_equal(np.unique(np.asarray(classes)), self.classes_):
            raise ValueError(f"classes={classes!r} are not those of the first call, {self.classes_}")
        if unknown := sorted(set(np.unique(y).tolist()) - set(self.classes_.tolist())):
            raise ValueError(f"y has {unknown}, which are not among the classes {self.classes_}")
        targets = np.searchsorted(self.classes_, y)
        self._fit(X, targets, sample_weight, num_classes=len(self.classes_), partial=True)
        self.out_activation_ = "softmax"
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The class of the largest probability, (N,)."""
        outputs = self._outputs(X)
        names: NDArray[Any] = self.classes_[outputs.argmax(1)]
        return names

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities, (N, C), in the order of `classes_`."""
        outputs = self._outputs(X)
        exponentials = np.exp(outputs - outputs.max(1, keepdims=True))
        probabilities: NDArray[np.float64] = exponentials / exponentials.sum(1, keepdims=True)
        return probabilities

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """The logarithms of `predict_proba`, (N, C)."""
        outputs = self._outputs(X)
        outputs = outputs - outputs.max(1, keepdims=True)
        logarithms: NDArray[np.float64] = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
        return logarithms

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[NDArray[np.float32], NDArray[Any]]:
        X, y = validate_data(
            self, X, y, accept_sparse="csr", dtype=(np.float64, np.float32), multi_output=True, reset=reset
        )
        check_classification_targets(y)
        if np.ndim(y) > 1 and np.shape(y)[1] > 1:
            raise ValueError("y has several columns; several labels of one sample are not supported, fit one for each")
        return as_float32(X), column_or_1d(y, warn=True)

    def _class_weights(self, targets: NDArray[Any], num_classes: int, train: NDArray[np.int64]) -> list[float] | None:
        if self.class_weight is None:
            return None
        labels = self.classes_[targets[train]]
        present = np.unique(labels)
        weights = np.ones(num_classes)
        present_weights = compute_class_weight(self.class_weight, classes=present, y=labels)
        weights[np.searchsorted(self.classes_, present)] = present_weights
        listed: list[float] = weights.tolist()
        return listed


class MLPRegressor(RegressorMixin, NetworkEstimator):
    """A network for values, with the parameters and attributes of `sklearn.neural_network.MLPRegressor`.

    Neither inputs nor targets are scaled: put a `StandardScaler` before it, and a `TransformedTargetRegressor` around
    it.

    Args:
        loss: "squared_error" (half of it, as in scikit-learn), "absolute_error" or "huber" (linear from 1 on), the mean
            over targets.

    The others are those of `MLPClassifier`; `early_stopping` goes by R².
    """

    _task = "regression"

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        norm: str = "none",
        dropout: float = 0.0,
        init: str = "xavier_uniform",
        model_options: Mapping[str, Any] | None = None,
        optimizer_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.norm = norm
        self.dropout = dropout
        self.init = init
        self.model_options = model_options
        self.optimizer_options = optimizer_options

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train from new weights, or with `warm_start` from those that there are.

        Args:
            X: (N, I), an array, DataFrame or sparse matrix.
            y: values, (N,) or (N, T).
            sample_weight: in the training loss, (N,).

        Raises:
            ValueError: the parameters or data cannot be, or the training has diverged.
        """
        record_call(self, X, y, sample_weight)
        X, targets = self._checked(X, y, reset=True)
        self._fit(X, targets, sample_weight, num_classes=0, partial=False)
        self.out_activation_ = "identity"
        return self

    def partial_fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train one epoch more on these samples."""
        X, targets = self._checked(X, y, reset=not hasattr(self, "_weights"))
        self._fit(X, targets, sample_weight, num_classes=0, partial=True)
        self.out_activation_ = "identity"
        return self

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Inputs, and targets (N, T)."""
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=(np.float64, np.float32),
            multi_output=True,
            y_numeric=True,
            reset=reset,
        )
        if np.ndim(y) == 2 and np.shape(y)[1] == 1:
            y = column_or_1d(y, warn=True)
        self._is_flat = np.ndim(y) == 1
        return as_float32(X), np.asarray(y, np.float64).reshape(len(y), -1)

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Values, (N,), or (N, T) where `y` had such a shape."""
        check_is_fitted(self)
        outputs = self._outputs(X)
        return outputs[:, 0] if self._is_flat else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
