"""Imported by the server that forks the folds, so that they need neither import Lightning nor make the parser each."""

from fmnist_cv.utils.importing import heavy_imports

with heavy_imports():
    import fmnist_cv.engine.fold  # noqa: F401  which all folds run
    from fmnist_cv.config.options import experiment_parser

    experiment_parser()
