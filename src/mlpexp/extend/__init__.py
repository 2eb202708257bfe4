"""Decorators with which a plugin, `plugins=[my_plugin.py]`, registers its functions: see docs/extending.md.

Each decorator takes a function, checks it with a few numbers, and adds it to the registry of its kind under its name.
"""

from mlpexp.extend.user_data import data_set
from mlpexp.extend.user_functions import activation, initialiser, schedule
from mlpexp.extend.user_optimizer import optimizer
from mlpexp.extend.user_scores import loss, measure, metric

__all__ = ["activation", "data_set", "initialiser", "loss", "measure", "metric", "optimizer", "schedule"]
