"""`StackedSearchCV` has the results of `GridSearchCV` over the same estimators, which fits them one by one."""

import os
import pickle
import signal
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from sklearn import config_context
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, RepeatedStratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler, scale

from mlpexp import MLPClassifier, MLPRegressor, StackedSearchCV
from mlpexp.api.estimators import stacked_fits
from mlpexp.runtime import portable

SHORT = {"max_iter": 4, "n_iter_no_change": np.inf, "random_state": 0, "learning_rate_init": 0.02}
CLASSIFIER = MLPClassifier((6,), **SHORT)
STOPPED = MLPClassifier((6,), random_state=0, learning_rate_init=0.05, max_iter=200, n_iter_no_change=2, tol=0.01)
REGRESSOR = MLPRegressor(hidden_layer_sizes=(6,), **SHORT)
SCALER = StandardScaler()
WEIGHTS = np.random.default_rng(0).uniform(0.5, 2, 150)


def iris():
    X, y = load_iris(return_X_y=True)
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return scale(X[:150]), y[:150] / 100


def specificity(estimator, X, y):
    return {"hits": float((estimator.predict(X) == y).mean()), "samples": len(y)}


CASES = {
    "networks": (CLASSIFIER, {"hidden_layer_sizes": [(4,), (4, 3)], "activation": ["tanh", "relu"]}, {}, {}),
    "rates of numpy": (CLASSIFIER,
                       {"learning_rate_init": np.logspace(-3, -1, 3), "alpha": np.array([0.0, 0.1])}, {"cv": 2}, {}),
    "ends": (STOPPED, {"alpha": [1e-4, 1.0], "early_stopping": [False, True]}, {"cv": 3}, {}),
    "seeds": (CLASSIFIER, {"random_state": [0, 1, np.random.RandomState(3)]}, {"cv": KFold(3)}, {}),
    "torch engine": (CLASSIFIER, {"dropout": [0.0, 0.2], "norm": ["none", "layer"]}, {"cv": 3}, {}),
    "weights": (CLASSIFIER, {"class_weight": [None, "balanced", {"setosa": 2.0, "versicolor": 1.0, "virginica": 1.0}]},
                {"cv": 3}, {"sample_weight": WEIGHTS}),
    "several scores": (CLASSIFIER, {"alpha": [0.0, 0.1]},
                       {"cv": 3, "scoring": ["accuracy", "neg_log_loss", "roc_auc_ovr"], "refit": "neg_log_loss"}, {}),
    "own scores": (CLASSIFIER, {"alpha": [0.0, 0.1]}, {"cv": 3, "scoring": specificity, "refit": "hits"}, {}),
    "no refit": (CLASSIFIER, {"alpha": [0.0, 0.1]}, {"cv": 3, "refit": False, "return_train_score": True}, {}),
    "repeated folds": (CLASSIFIER, {"alpha": [0.0, 0.1]},
                       {"cv": RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=1)}, {}),
    "groups": (CLASSIFIER, {"alpha": [0.0, 0.1]}, {"cv": GroupKFold(3)}, {"groups": np.arange(150) % 7}),
    "lists of grids": (CLASSIFIER, [{"alpha": [0.0]}, {"activation": ["tanh", "logistic"]}], {"cv": 3}, {}),
    "pipeline": (make_pipeline(StandardScaler(), CLASSIFIER),
                 {"standardscaler__with_std": [True, False], "mlpclassifier__alpha": [0.0, 0.1]}, {"cv": 3},
                 {"mlpclassifier__sample_weight": WEIGHTS}),
    "steps": (make_pipeline(StandardScaler(), PCA(2), CLASSIFIER),
              {"pca": [PCA(2), "passthrough"], "mlpclassifier": [CLASSIFIER, MLPClassifier((3,), **SHORT)]},
              {"cv": 3}, {}),
    "binary parts": (OneVsRestClassifier(CLASSIFIER), {"estimator__alpha": [0.0, 0.1]}, {"cv": 3}, {}),
    "threads": (CLASSIFIER, {"alpha": [0.0, 0.1, 1.0]}, {"cv": 3, "n_jobs": 2}, {}),
    "values": (REGRESSOR, {"loss": ["squared_error", "huber"], "hidden_layer_sizes": [3, (4, 2)]}, {"cv": 3}, {}),
    "scaled values": (TransformedTargetRegressor(make_pipeline(StandardScaler(), REGRESSOR), transformer=SCALER),
                      {"regressor__mlpregressor__alpha": [0.0, 0.1]}, {"cv": 3}, {}),
}  # fmt: skip


@pytest.fixture
def trained(monkeypatch):
    """The number of fits in each training."""
    sizes = []
    train = stacked_fits.train

    def counted(fits, jobs=1):
        sizes.append(len(fits))
        return train(fits, jobs)

    monkeypatch.setattr(stacked_fits, "train", counted)
    return sizes


def assert_equal_results(ours, theirs):
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()
    for key, values in theirs.cv_results_.items():
        if key == "params" or key.startswith("param_"):
            assert list(map(str, ours.cv_results_[key])) == list(map(str, values))
        elif not key.endswith("_time"):
            np.testing.assert_array_equal(ours.cv_results_[key], values, key)
    assert {name for name in vars(ours) if name.endswith("_")} == {name for name in vars(theirs) if name.endswith("_")}
    assert (ours.n_splits_, ours.multimetric_) == (theirs.n_splits_, theirs.multimetric_)


@pytest.mark.thorough(sample=4)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:The scoring .* does not support")
def test_the_search_has_the_results_of_fits_one_by_one(case, trained):
    estimator, grid, settings, parameters = CASES[case]
    X, y = diabetes() if "values" in case else iris()
    ours = StackedSearchCV(estimator, grid, **settings).fit(X, y, **parameters)
    stacked, alone = trained[0], len(trained) - 1
    trained.clear()
    theirs = GridSearchCV(estimator, grid, **settings | {"n_jobs": None}).fit(X, y, **parameters)
    refits = 0 if ours.refit is False else 3 if "binary" in case else 1
    assert (stacked, alone) == (len(trained) - refits, refits)
    assert_equal_results(ours, theirs)
    assert (ours.cv_results_["mean_fit_time"] > 0).all()
    if refits:
        assert ours.best_params_.keys() == theirs.best_params_.keys()
        assert (ours.best_index_, ours.best_score_) == (theirs.best_index_, theirs.best_score_)
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(ours)).predict(X), theirs.predict(X))


NEEDS_FORK = pytest.mark.skipif(not portable.can_fork(), reason="processes cannot be copied here")
MIXED = {"dropout": [0.0, 0.2], "alpha": [0.0, 0.1], "hidden_layer_sizes": [(4,), (5,)]}


@pytest.fixture
def by_processes(monkeypatch):
    """However short the training is; this process itself may not train more than one network."""
    own, train_stack = os.getpid(), stacked_fits.train_stack

    def elsewhere(configs, *arguments, **others):
        assert os.getpid() != own or len(configs) == 1
        return train_stack(configs, *arguments, **others)

    monkeypatch.setattr(stacked_fits, "MIN_COST", 0.0)
    monkeypatch.setattr(stacked_fits, "train_stack", elsewhere)


@NEEDS_FORK
def test_results_do_not_depend_on_the_number_of_processes(by_processes):
    ours = StackedSearchCV(CLASSIFIER, MIXED, cv=3, n_jobs=2).fit(*iris())
    theirs = GridSearchCV(CLASSIFIER, MIXED, cv=3).fit(*iris())
    assert_equal_results(ours, theirs)
    np.testing.assert_array_equal(ours.predict_proba(iris()[0]), theirs.predict_proba(iris()[0]))


@NEEDS_FORK
def test_a_worker_that_is_killed_is_named(by_processes, monkeypatch):
    monkeypatch.setattr(stacked_fits, "train_stack", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(RuntimeError, match=r"a worker process of the search was ended .* n_jobs=1"):
        StackedSearchCV(CLASSIFIER, MIXED, cv=3, n_jobs=2).fit(*iris())


def test_preprocessing_is_fitted_once_more_for_each_fold_and_not_for_each_network():
    calls = []
    counting = FunctionTransformer(lambda X: calls.append(len(X)) or X)
    pipeline = make_pipeline(counting, CLASSIFIER)
    StackedSearchCV(pipeline, {"mlpclassifier__alpha": [0.0, 0.1, 1.0]}, cv=2, refit=False).fit(*iris())
    assert len(calls) == 2 + 3 * 2 * 2  # GridSearchCV: each of 3 candidates, 2 folds, to fit and to score


def test_metadata_is_routed():
    with config_context(enable_metadata_routing=True):
        network = (
            MLPClassifier((6,), **SHORT).set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        )
        found = [
            kind(network, {"alpha": [0.0, 0.1]}, cv=3).fit(*iris(), sample_weight=WEIGHTS)
            for kind in (StackedSearchCV, GridSearchCV)
        ]
    assert_equal_results(*found)


def test_a_candidate_that_fails_has_the_score_for_errors():
    grid = {"alpha": [0.0, -1.0], "hidden_layer_sizes": [(4,), (5,)]}
    for kind in (StackedSearchCV, GridSearchCV):
        with (
            pytest.warns(FitFailedWarning, match=r"alpha=-1\.0 cannot be"),
            pytest.warns(UserWarning, match="non-finite"),
        ):
            search = kind(CLASSIFIER, grid, cv=2).fit(*iris())
        assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, False, True, True]
        with pytest.raises(ValueError, match=r"alpha=-1\.0 cannot be"):
            kind(CLASSIFIER, grid, cv=2, error_score="raise").fit(*iris())


def test_what_is_drawn_anew_each_time_is_trained_by_itself(trained):
    noise = FunctionTransformer(lambda X: X + np.random.normal(size=X.shape))
    search = StackedSearchCV(make_pipeline(noise, CLASSIFIER), {"mlpclassifier__alpha": [0.0, 0.1]}, cv=2, refit=False)
    with pytest.warns(
        UserWarning, match="4 networks were trained by themselves and not in stacks: their data was not the same"
    ):
        search.fit(*iris())
    assert trained == [4, 1, 1, 1, 1]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_networks_of_an_estimator_that_predicts_while_it_is_fitted_are_trained_by_themselves(trained):
    calibrated = CalibratedClassifierCV(CLASSIFIER, cv=2, ensemble=False)
    found = []
    for kind in (StackedSearchCV, GridSearchCV):
        search = kind(calibrated, {"estimator__alpha": [0.0, 0.1]}, cv=2, refit=False)
        with pytest.warns(UserWarning, match="12 networks") if kind is StackedSearchCV else nullcontext():
            found.append(search.fit(*iris()))
    assert_equal_results(*found)


def test_networks_without_a_seed_train_in_stacks(trained):
    network = MLPClassifier((6,), **SHORT | {"random_state": None}, early_stopping=True)
    StackedSearchCV(network, {"alpha": [0.0, 0.1]}, cv=KFold(2, shuffle=True), refit=False).fit(*iris())
    assert trained == [4]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_one_warning_says_how_many_fits_had_too_few_epochs():
    network = MLPClassifier((6,), max_iter=2, random_state=0)
    with pytest.warns(Warning, match="in 4 of 4 fits") as warned:
        StackedSearchCV(network, {"alpha": [0.0, 0.1]}, cv=2, refit=False).fit(*iris())
    assert len(warned) == 1


def test_estimators_without_a_network_are_refused():
    with pytest.raises(TypeError, match=r"LogisticRegression\(\) has no mlpexp.MLPClassifier or MLPRegressor in it"):
        StackedSearchCV(LogisticRegression(), {"C": [1.0, 2.0]}).fit(*iris())


def test_what_is_no_estimator_is_refused_as_by_scikit_learn():
    with pytest.raises(TypeError):
        StackedSearchCV(MLPClassifier, {"alpha": [1.0]}).fit(*iris())


def test_a_search_writes_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    StackedSearchCV(CLASSIFIER, {"alpha": [0.0, 0.1]}, cv=2).fit(*iris())
    assert list(Path().iterdir()) == []
