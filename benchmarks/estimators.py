"""`StackedSearchCV` beside scikit-learn's `GridSearchCV` with its own networks: 27 candidates, 5 folds, equal splits.

Both sides train by turns in this process and its workers; medians are printed. `estimators.py [REPEATS] [EPOCHS]`.
"""

import os
import statistics
import sys
import time
import warnings

import numpy as np
from measuring import surroundings
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import mlpexp

JOBS = 2
FOLDS = 5
WANTED = 10  # times faster
SETTINGS = {
    "small batches, sgd": {"solver": "sgd", "batch_size": 32, "momentum": 0.0, "alpha": 1e-4},
    "scikit-learn's defaults": {},
}
GRIDS = {
    "small batches, sgd": {
        "hidden_layer_sizes": [(32,), (64,), (32, 32)],
        "learning_rate_init": [0.03, 0.1, 0.3],
        "activation": ["tanh", "relu", "logistic"],
    },
    "scikit-learn's defaults": {
        "hidden_layer_sizes": [(50,), (100,), (50, 50)],
        "learning_rate_init": [0.0003, 0.001, 0.003],
        "alpha": [1e-5, 1e-4, 1e-3],
    },
}


def main(repeats: int, epochs: int) -> None:
    warnings.simplefilter("ignore")  # few epochs do not converge
    os.environ["PYTHONWARNINGS"] = "ignore"  # in the workers
    X, y = load_digits(return_X_y=True)
    X = X / 16
    splits = list(StratifiedKFold(FOLDS).split(X, y))
    print(surroundings())
    for name, grid in GRIDS.items():
        # as many epochs on both sides
        settings = {"random_state": 0, "max_iter": epochs, "n_iter_no_change": epochs, **SETTINGS[name]}
        stacked = mlpexp.StackedSearchCV(mlpexp.MLPClassifier(**settings), grid, cv=splits, refit=False, n_jobs=JOBS)
        network = neural_network.MLPClassifier(**settings)
        peer = GridSearchCV(network, grid, cv=splits, refit=False, n_jobs=JOBS)
        small_grid = {key: values[:1] for key, values in grid.items()}
        for search in (stacked, peer):  # what is compiled, and the workers that are started, once
            kind = type(search)
            kind(search.estimator.set_params(max_iter=1), small_grid, cv=splits[:2], refit=False, n_jobs=JOBS).fit(X, y)
            search.estimator.set_params(max_iter=epochs)
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(repeats):
            for side, search in (("ours", stacked), ("theirs", peer)):
                started = time.perf_counter()
                search.fit(X, y)
                seconds[side].append(time.perf_counter() - started)
        scores = [search.cv_results_["mean_test_score"] for search in (stacked, peer)]
        stacked_s, peer_s = (statistics.median(values) for values in seconds.values())
        print(
            f"{name}: {len(scores[0])} candidates x {FOLDS} folds, {epochs} epochs: StackedSearchCV {stacked_s:.2f} s, "
            f"GridSearchCV {peer_s:.2f} s, {peer_s / stacked_s:.1f} times faster, wanted {WANTED}; mean accuracies "
            f"{scores[0].mean():.4f} and {scores[1].mean():.4f}, best {scores[0].max():.4f} and {scores[1].max():.4f}, "
            f"largest difference {np.abs(scores[0] - scores[1]).max():.4f}"
        )


if __name__ == "__main__":
    main(*(int(argument) for argument in [*sys.argv[1:3], *("3", "50")[len(sys.argv) - 1 :]]))
