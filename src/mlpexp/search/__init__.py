"""Searches with Optuna (`hydra/sweeper=optuna`); `optuna_search.optimise` is the entry."""
