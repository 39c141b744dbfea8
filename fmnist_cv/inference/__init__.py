"""Finished runs in use: their networks as an ensemble that predicts, is scored on other images, and is exported."""

from fmnist_cv.inference.ensemble import Ensemble, Predictions, load_ensemble
from fmnist_cv.inference.evaluation import evaluate_run
from fmnist_cv.inference.export import export_run
from fmnist_cv.inference.files import FilePredictions, predict_files
from fmnist_cv.inference.safetensors_export import load_exported

__all__ = [
    "Ensemble",
    "FilePredictions",
    "Predictions",
    "evaluate_run",
    "export_run",
    "load_ensemble",
    "load_exported",
    "predict_files",
]
