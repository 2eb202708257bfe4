"""Networks and their search with the interface of scikit-learn: `MLPClassifier`, `MLPRegressor`, `StackedSearchCV`.

They train in memory and write no files.
"""

from mlpexp.api.estimators.mlp_estimators import MLPClassifier, MLPRegressor
from mlpexp.api.estimators.stacked_search import StackedSearchCV

__all__ = ["MLPClassifier", "MLPRegressor", "StackedSearchCV"]
