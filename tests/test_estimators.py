"""The estimators: scikit-learn's own checks, and the numbers of scikit-learn's networks and of other ways to train."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import parametrize_with_checks

import mlpexp
from mlpexp.config.schema import ModelConfig
from mlpexp.nn.initialisation import initialise
from mlpexp.nn.network import multilayer_perceptron
from mlpexp.nn.optimizers import OPTIMIZERS

SMALL = {"hidden_layer_sizes": (16,), "learning_rate_init": 0.03, "max_iter": 30}
ENDLESS = {"n_iter_no_change": np.inf}  # all epochs, and no warning


def iris():
    X, y = load_iris(return_X_y=True)
    return scale(X), np.array(["setosa", "versicolor", "virginica"])[y]


def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return scale(X[:120]), scale(y[:120])


def expected_failures(estimator):
    weights = "batches of weighted and of repeated samples round differently, as for most solvers of scikit-learn's"
    return {
        "check_sample_weight_equivalence_on_dense_data": weights,
        "check_sample_weight_equivalence_on_sparse_data": weights,
    }


@pytest.mark.thorough(sample=12)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [mlpexp.MLPClassifier(**SMALL), mlpexp.MLPRegressor(**SMALL)], expected_failed_checks=expected_failures
)
def test_scikit_learn_finds_the_estimators_to_be_its_own(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "solver", [{"solver": "adam"}, {"solver": "sgd"}, {"solver": "sgd", "nesterovs_momentum": False}]
)
@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_steps_are_those_of_scikit_learn(kind, solver):
    X, y = iris() if kind == "MLPClassifier" else diabetes()
    settings = {"hidden_layer_sizes": (7, 5), "activation": "tanh", "alpha": 0.1, "batch_size": 30, "shuffle": False}
    settings |= {"learning_rate_init": 0.01, "max_iter": 1, "random_state": 0, "warm_start": True} | solver
    ours, theirs = getattr(mlpexp, kind)(**settings).fit(X, y), getattr(neural_network, kind)(**settings).fit(X, y)
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        other[:] = mine
    ours.set_params(max_iter=4, **ENDLESS).fit(X, y)
    theirs.set_params(max_iter=4).fit(X, y)
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-5)
    if kind == "MLPRegressor":
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=1e-4)
    else:
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)
        np.testing.assert_allclose(np.exp(ours.predict_log_proba(X)), ours.predict_proba(X), rtol=1e-12)


@pytest.mark.parametrize("weights", [None, "class", "sample"])
def test_weighted_training_is_that_of_a_torch_loop(weights):
    X, labels = iris()
    y = np.unique(labels, return_inverse=True)[1]
    by_class = torch.tensor([1.0, 2.0, 0.5])[torch.from_numpy(y)] if weights == "class" else torch.ones(len(y))
    by_sample = np.random.default_rng(0).uniform(0.1, 2, len(y)) if weights == "sample" else None
    w = by_class if by_sample is None else torch.from_numpy(by_sample).float()
    ours = mlpexp.MLPClassifier(
        (6,), "tanh", alpha=0, batch_size=50, shuffle=False, max_iter=3, random_state=5, **ENDLESS,
        class_weight={"setosa": 1.0, "versicolor": 2.0, "virginica": 0.5} if weights == "class" else None,
    ).fit(X, labels, sample_weight=by_sample)  # fmt: skip
    network = multilayer_perceptron(4, [6], 3, "tanh")
    tensors = [value.requires_grad_() for value in initialise(network, ModelConfig(init="xavier_uniform"), 5).values()]
    optimizer = torch.optim.Adam(tensors, 0.001)
    inputs, targets = torch.from_numpy(X).float(), torch.from_numpy(y)
    for _ in range(3):
        for part in torch.arange(len(y)).split(50):
            hidden = torch.tanh(inputs[part] @ tensors[0].T + tensors[1])
            losses = torch.nn.functional.cross_entropy(
                hidden @ tensors[2].T + tensors[3], targets[part], reduction="none"
            )
            optimizer.zero_grad()
            ((losses * w[part]).sum() / w[part].sum()).backward()
            optimizer.step()
    for mine, theirs in zip(ours.coefs_, tensors[::2], strict=True):
        np.testing.assert_allclose(mine, theirs.detach().T, rtol=1e-4, atol=1e-6)


@pytest.mark.thorough(sample=4)
@pytest.mark.parametrize("solver", [name for name, rule in OPTIMIZERS.items() if rule.trains_alone is None])
def test_partial_fits_are_the_epochs_of_one_fit(solver):
    X, y = iris()
    settings = {"hidden_layer_sizes": (6,), "solver": solver, "shuffle": False, "batch_size": 40, "random_state": 1}
    whole = mlpexp.MLPClassifier(max_iter=3, **ENDLESS, **settings).fit(X, y)
    parts = mlpexp.MLPClassifier(**settings)
    for _ in range(3):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(X, y, classes=np.unique(y))))
    for mine, theirs in zip(parts.coefs_ + parts.intercepts_, whole.coefs_ + whole.intercepts_, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert parts.loss_curve_ == whole.loss_curve_
    assert (parts.n_iter_, parts.t_) == (whole.n_iter_, whole.t_) == (3, 3 * len(X))


def test_warm_start_goes_on_from_the_weights():
    X, y = diabetes()
    settings = {"hidden_layer_sizes": (6,), "solver": "sgd", "momentum": 0.0, "shuffle": False, "random_state": 1}
    whole = mlpexp.MLPRegressor(max_iter=4, **ENDLESS, **settings).fit(X, y)
    warm = mlpexp.MLPRegressor(max_iter=2, warm_start=True, **ENDLESS, **settings).fit(X, y).fit(X, y)
    np.testing.assert_array_equal(warm.predict(X), whole.predict(X))
    with pytest.raises(ValueError, match="other ones are wanted"):
        warm.set_params(hidden_layer_sizes=(7,)).fit(X, y)


def test_early_stopping_keeps_the_weights_of_the_best_epoch():
    X, y = iris()
    network = mlpexp.MLPClassifier((16,), learning_rate_init=0.05, max_iter=40, early_stopping=True, random_state=0)
    network.set_params(n_iter_no_change=3, validation_fraction=0.3).fit(X, y)
    assert network.n_iter_ < 40
    assert network.best_validation_score_ == max(network.validation_scores_)
    best = network.validation_scores_.index(network.best_validation_score_) + 1
    again = clone(network).set_params(max_iter=best, n_iter_no_change=np.inf).fit(X, y)
    np.testing.assert_array_equal(network.predict_proba(X), again.predict_proba(X))


def test_training_ends_when_its_loss_has_stopped_falling():
    X, y = iris()
    network = mlpexp.MLPClassifier((8,), learning_rate_init=0.05, max_iter=60, tol=0.02, random_state=0)
    whole = clone(network).set_params(**ENDLESS).fit(X, y)
    best, waited, epochs = np.inf, 0, 0
    while waited <= 3:
        loss = whole.loss_curve_[epochs]
        best, waited, epochs = (loss, 0, epochs + 1) if loss < best - 0.02 else (best, waited + 1, epochs + 1)
    assert network.set_params(n_iter_no_change=3).fit(X, y).n_iter_ == epochs < 60
    assert network.loss_curve_ == whole.loss_curve_[:epochs]
    assert network.loss_ == network.loss_curve_[-1]


def test_the_end_of_the_epochs_before_that_of_the_training_is_a_warning():
    X, y = iris()
    with pytest.warns(ConvergenceWarning, match="max_iter=2 epochs ended before"):
        mlpexp.MLPClassifier((4,), max_iter=2, random_state=0).fit(X, y)


def test_equal_seeds_give_equal_networks_and_no_generator_or_file_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, y = iris()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    threads = torch.get_num_threads()
    network = mlpexp.MLPClassifier((4,), max_iter=2, random_state=3, **ENDLESS)
    first, second = (clone(network).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert threads == torch.get_num_threads()
    assert list(Path().iterdir()) == []
    network.set_params(random_state=None)
    assert (clone(network).fit(X, y).predict_proba(X) != clone(network).fit(X, y).predict_proba(X)).any()


@pytest.mark.parametrize(
    "settings",
    [{"norm": "batch"}, {"norm": "layer", "dropout": 0.2}, {"hidden_layer_sizes": ()}, {"learning_rate": "adaptive"},
     {"activation": "logistic"}, {"learning_rate": "cosine", "solver": "muon"}, {"hidden_layer_sizes": np.int64(5)}],
    ids=str,
)  # fmt: skip
def test_what_networks_have_here_trains_in_estimators(settings):
    X, y = iris()
    network = mlpexp.MLPClassifier(
        **{"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0} | settings, **ENDLESS
    )
    network.set_params(learning_rate_init=0.05, batch_size=30).fit(X, y)
    assert network.score(X, y) > 0.6
    np.testing.assert_allclose(pickle.loads(pickle.dumps(network)).predict_proba(X), network.predict_proba(X))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "rleu", "alpha": -1}, "activation='rleu' is not known; choose one of tanh, relu.*; alpha=-1 "),
        ({"solver": "lbfgs"}, "solver='lbfgs' is not known; choose one of sgd, adam"),
        ({"hidden_layer_sizes": (8, 0)}, r"hidden_layer_sizes=\[8, 0\] cannot be: input should be greater"),
        (
            {"learning_rate_init": 1e6, "solver": "sgd", "activation": "identity"} | ENDLESS,
            "the training has diverged: .*learning_rate_init=1000000.0",
        ),
        ({"early_stopping": True, "validation_fraction": 0.02}, "validation_fraction"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(settings, message):
    X, y = diabetes()
    with pytest.raises(ValueError, match=message) as raised:
        mlpexp.MLPRegressor(**settings).fit(X[:40], y[:40] * 1e3)
    assert "\n" not in str(raised.value)


def test_the_classes_of_partial_fit_are_those_of_its_first_call():
    X, y = iris()
    with pytest.raises(ValueError, match="needs classes"):
        mlpexp.MLPClassifier().partial_fit(X, y)
    network = mlpexp.MLPClassifier((4,)).partial_fit(X[:50], y[:50], classes=np.unique(y))
    assert network.partial_fit(X, y).predict_proba(X).shape == (150, 3)
    with pytest.raises(ValueError, match=r"y has \['rose'\]"):
        network.partial_fit(X[:1], ["rose"])


def test_names_of_columns_are_kept():
    pandas = pytest.importorskip("pandas")
    X, y = iris()
    frame = pandas.DataFrame(StandardScaler().fit_transform(X), columns=list("abcd"))
    network = mlpexp.MLPClassifier((4,), max_iter=2, **ENDLESS).fit(frame, y)
    assert network.feature_names_in_.tolist() == list("abcd")
    assert network.n_features_in_ == 4
    with pytest.raises(ValueError, match="feature names"):
        network.predict(frame.rename(columns={"a": "z"}))
