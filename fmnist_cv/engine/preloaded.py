"""Imported by the server that forks the folds, so that they need not make the parser each."""

from fmnist_cv.config.options import experiment_parser

experiment_parser()
