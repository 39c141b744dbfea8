"""k-fold cross-validation done right for image classifiers in PyTorch Lightning."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fmnist_cv.utils.torchvision_import import prepare_torchvision_import

prepare_torchvision_import()  # before Lightning, whose metrics import torchvision

__version__ = version("fmnist_cv")

if TYPE_CHECKING:
    from fmnist_cv.analysis.compared_runs import compare_runs as compare_runs
    from fmnist_cv.analysis.finished_run import CrossValidationResult as CrossValidationResult
    from fmnist_cv.config.experiment import Experiment as Experiment
    from fmnist_cv.cross_validation import cross_validate as cross_validate
    from fmnist_cv.data import (
        ArrayDataModule as ArrayDataModule,
        FashionMNISTDataModule as FashionMNISTDataModule,
        KFoldDataModule as KFoldDataModule,
        MNISTDataModule as MNISTDataModule,
        SyntheticDataModule as SyntheticDataModule,
    )
    from fmnist_cv.inference import (
        Ensemble as Ensemble,
        evaluate_run as evaluate_run,
        export_run as export_run,
        load_ensemble as load_ensemble,
        load_exported as load_exported,
        predict_files as predict_files,
    )
    from fmnist_cv.models import (
        BatchNormCNN as BatchNormCNN,
        DenseNetwork as DenseNetwork,
        ImageClassifier as ImageClassifier,
        LinearClassifier as LinearClassifier,
        LogSoftmaxANN as LogSoftmaxANN,
    )
    from fmnist_cv.reporting.page import write_report as write_report
    from fmnist_cv.search.tuning import SearchResult as SearchResult, tune as tune

# public name: where it lives; imported on first use, so that `import fmnist_cv` stays quick
_PUBLIC = {
    "compare_runs": "fmnist_cv.analysis.compared_runs",
    "cross_validate": "fmnist_cv.cross_validation",
    "CrossValidationResult": "fmnist_cv.analysis.finished_run",
    "Experiment": "fmnist_cv.config.experiment",
    "SearchResult": "fmnist_cv.search.tuning",
    "tune": "fmnist_cv.search.tuning",
    "write_report": "fmnist_cv.reporting.page",
    **dict.fromkeys(
        ("ArrayDataModule", "FashionMNISTDataModule", "KFoldDataModule", "MNISTDataModule", "SyntheticDataModule"),
        "fmnist_cv.data",
    ),
    **dict.fromkeys(
        ("Ensemble", "evaluate_run", "export_run", "load_ensemble", "load_exported", "predict_files"),
        "fmnist_cv.inference",
    ),
    **dict.fromkeys(
        ("BatchNormCNN", "DenseNetwork", "ImageClassifier", "LinearClassifier", "LogSoftmaxANN"), "fmnist_cv.models"
    ),
}

_MOVED = {"ProductImagesDataModule": "fmnist_cv.data"}  # to experiments/, where configs from before still find it

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name) or _MOVED.get(name)
    if module is None:
        raise AttributeError(f"module 'fmnist_cv' has no attribute '{name}'")
    return getattr(import_module(module), name)
