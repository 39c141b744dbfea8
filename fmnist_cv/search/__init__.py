"""Optuna searches an experiment's hyperparameters over folds."""
