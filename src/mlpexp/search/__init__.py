"""Searches that learn from their trials: `hydra/sweeper=optuna`; see `optimise.py`."""
