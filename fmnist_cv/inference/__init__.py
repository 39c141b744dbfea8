"""Finished runs in use: their models as an ensemble that predicts, is evaluated on other images, and is exported."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmnist_cv.inference.ensemble import (
        Ensemble as Ensemble,
        Predictions as Predictions,
        load_ensemble as load_ensemble,
    )
    from fmnist_cv.inference.evaluation import evaluate_run as evaluate_run
    from fmnist_cv.inference.export import export_run as export_run
    from fmnist_cv.inference.files import FilePredictions as FilePredictions, predict_files as predict_files
    from fmnist_cv.inference.safetensors_export import load_exported as load_exported

# public name: its module; imported on first use, since they need torch and Lightning
_PUBLIC = {
    "Ensemble": "ensemble",
    "FilePredictions": "files",
    "Predictions": "ensemble",
    "evaluate_run": "evaluation",
    "export_run": "export",
    "load_ensemble": "ensemble",
    "load_exported": "safetensors_export",
    "predict_files": "files",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
