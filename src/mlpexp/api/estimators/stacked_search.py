"""`StackedSearchCV`: scikit-learn's `GridSearchCV`, whose networks are trained together."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from joblib import effective_n_jobs, parallel_config
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, indexable
from sklearn.utils.validation import _check_method_params

from mlpexp.api.estimators.network_estimator import UNFINISHED, NetworkEstimator
from mlpexp.api.estimators.stacked_fits import StackedFits

Parameters = Mapping[str, Any]
Indices = NDArray[np.int64]


class StackedSearchCV(GridSearchCV):
    """`GridSearchCV` over `MLPClassifier` or `MLPRegressor`, alone or as a part of another estimator.

    Splits, scores, attributes and arguments are those of `GridSearchCV`; only the networks of all candidates and folds
    are trained as stacks, before they are scored. In a `Pipeline` the other steps are fitted to each fold. A fit that
    cannot be foreseen, e.g. after a step that draws at random, is trained by itself.

    Args:
        n_jobs: stacks that are trained at once, by processes, and threads that score. They do not change results.

    `mean_fit_time` is the share of the stacks' training time, and what else a fit has taken.
    """

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Train and score all candidates; with `refit`, the best one on all samples.

        Args:
            X: (N, I).
            y: classes or values.
            params: of the estimator's `fit`, e.g. `sample_weight`, and `groups`.

        Raises:
            TypeError: the estimator has no network of mlpexp.
        """
        values = _values(self.estimator, self.param_grid) if isinstance(self.estimator, BaseEstimator) else ()
        if not any(_has_network(value) for value in values):
            raise TypeError(
                f"{self.estimator!r} has no mlpexp.MLPClassifier or MLPRegressor in it, so there is nothing to stack; "
                "use sklearn.model_selection.GridSearchCV"
            )
        self._given = X, y, params
        try:
            with parallel_config(backend="threading"):
                super().fit(X, y, **params)
            _warn(self._stacked)
        finally:
            for name in ("_given", "_stacked"):
                if hasattr(self, name):
                    delattr(self, name)
        return self

    def _run_search(self, evaluate_candidates: Callable[..., Any], *, callback_ctx: Any = None) -> None:
        def evaluate(candidates: Any, cv: Any = None, **more: Any) -> Any:
            data = self._data()
            splitter = cv or self._checked_cv_orig
            splits = list(splitter.split(data.X, data.y, **data.split_params))
            candidates = list(candidates)
            stacked = StackedFits(effective_n_jobs(self.n_jobs))
            recorded = _record(stacked, clone(self.estimator), candidates, data, splits)
            with stacked.available(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", f".*{UNFINISHED}", ConvergenceWarning)  # one for all is below
                results = evaluate_candidates(candidates, cv=_Splits(splits), **more)
            self._stacked = stacked
            _add_times(results, stacked, recorded, len(splits))
            return results

        super()._run_search(evaluate, callback_ctx=callback_ctx)

    def _data(self) -> "_Data":
        X, y, params = self._given
        X, y = indexable(X, y)
        routed = self._get_routed_params_for_fit(_check_method_params(X, params=params))
        return _Data(X, y, dict(routed.estimator.fit), dict(routed.splitter.split))


class _Data(NamedTuple):
    """What a search is given, and what of it goes where."""

    X: Any
    y: Any
    fit_params: dict[str, Any]
    split_params: dict[str, Any]

    def part(self, index: Indices) -> "_Data":
        """These samples."""
        y = None if self.y is None else _safe_indexing(self.y, index)
        params = _check_method_params(self.X, params=self.fit_params, indices=index)
        return _Data(_safe_indexing(self.X, index), y, params, {})


class _Splits:
    """Splits that have been drawn; as a splitter."""

    def __init__(self, splits: Sequence[tuple[Indices, Indices]]) -> None:
        self.splits = splits

    def split(self, X: Any = None, y: Any = None, groups: Any = None) -> Sequence[tuple[Indices, Indices]]:
        return self.splits


def _record(
    stacked: StackedFits,
    base: Any,
    candidates: Sequence[Parameters],
    data: _Data,
    splits: Sequence[tuple[Indices, Indices]],
) -> list[tuple[int, int]]:
    """Record the fits of all candidates in all folds; of which candidate and fold each is.

    Candidates that differ only in parameters of the network share the preprocessing of a fold.
    """
    places: list[tuple[int, int]] = []

    def fit(estimator: Any, member: int, fold: int, train_data: _Data) -> None:
        num_before = len(stacked.fits)
        try:
            with stacked.recording():
                estimator.fit(train_data.X, *([] if train_data.y is None else [train_data.y]), **train_data.fit_params)
        except Exception:  # the search fits it again, and handles its errors as `error_score` says
            del stacked.fits[num_before:]
        places.extend([(member, fold)] * (len(stacked.fits) - num_before))

    for fold, (train, _) in enumerate(splits):
        train_data = data.part(train)
        for members in _groups(base, candidates):
            num_before = len(stacked.fits)
            estimator = _with(base, candidates[members[0]])
            fit(estimator, members[0], fold, train_data)
            prefix, network = _last_step(estimator)
            called_estimator, arguments = stacked.call
            prepared = (
                _Data(arguments[0], arguments[1], {"sample_weight": arguments[2]}, {}) if arguments else train_data
            )
            shares = called_estimator is network and len(stacked.fits) == num_before + 1
            for member in members[1:]:
                if shares:
                    network_parameters = {
                        k.removeprefix(prefix): v for k, v in candidates[member].items() if k.startswith(prefix)
                    }
                    fit(_with(network, network_parameters), member, fold, prepared)
                else:
                    fit(_with(base, candidates[member]), member, fold, train_data)
    stacked.call = None, ()
    return places


def _groups(base: Any, candidates: Sequence[Parameters]) -> list[list[int]]:
    """Candidates that set the same parameters, and differ in those of the last step only, by their numbers."""
    prefix, network = _last_step(base)
    groups: dict[object, list[int]] = defaultdict(list)
    for number, candidate in enumerate(candidates):
        other_values = [id(candidate[key]) for key in sorted(candidate) if not key.startswith(prefix)]
        groups[number if network is None else (*sorted(candidate), *other_values)].append(number)
    return list(groups.values())


def _last_step(estimator: Any) -> tuple[str, NetworkEstimator | None]:
    """The network at the end of an estimator, with the prefix of its parameters; None where there is none."""
    if isinstance(estimator, NetworkEstimator):
        return "", estimator
    if isinstance(estimator, Pipeline) and isinstance(estimator.steps[-1][1], NetworkEstimator):
        return f"{estimator.steps[-1][0]}__", estimator.steps[-1][1]
    return "", None


def _with(estimator: Any, parameters: Parameters) -> Any:
    return clone(estimator).set_params(**clone(dict(parameters), safe=False))


def _values(estimator: Any, grid: Any) -> Iterator[Any]:
    """The estimators that a search may fit."""
    yield from (estimator, *estimator.get_params().values())
    for grid_part in [grid] if isinstance(grid, Mapping) else grid:
        yield from (value for values in grid_part.values() for value in values if isinstance(value, BaseEstimator))


def _has_network(value: Any) -> bool:
    if isinstance(value, NetworkEstimator):
        return True
    return isinstance(value, BaseEstimator) and any(
        isinstance(v, NetworkEstimator) for v in value.get_params().values()
    )


def _warn(stacked: StackedFits) -> None:
    """One warning for all fits."""
    count = len(stacked.trained)
    if stacked.num_others:
        warnings.warn(
            f"{stacked.num_others} networks were trained by themselves and not in stacks: their data was not the same "
            "when it was prepared again (give steps that draw at random a random_state), or an estimator predicts "
            "in its fit",
            UserWarning,
            stacklevel=3,
        )
    if unfinished := sum(network.is_unfinished for network in stacked.trained):
        warnings.warn(
            f"max_iter {UNFINISHED} in {unfinished} of {count} fits; choose more, or a larger tol",
            ConvergenceWarning,
            stacklevel=3,
        )


def _add_times(results: dict[str, Any], stacked: StackedFits, places: Sequence[tuple[int, int]], folds: int) -> None:
    """Add each fit's share of the training time to what its preparation took."""
    seconds = np.zeros((len(results["params"]), folds))
    for (candidate, fold), network in zip(places, stacked.trained, strict=True):
        seconds[candidate, fold] += network.seconds
    results["mean_fit_time"] += seconds.mean(1)
    results["std_fit_time"] = np.hypot(results["std_fit_time"], seconds.std(1))
