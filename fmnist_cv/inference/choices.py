"""What a user chooses among when a finished run is used; light, so that a command's `--help` needs nothing else."""

from __future__ import annotations

from typing import Literal

ModelChoice = Literal["ensemble", "best", "refit"]  # the folds' soft vote, the best fold's model, or the refit
DataPart = Literal["test", "train"]
Preprocessing = Literal["auto", "fashion-mnist", "none"]
AS_PUBLISHED = (  # what predict offered before
    "preprocessing 'as-published' is no longer offered; use 'fashion-mnist', or, in a checkout, apply as_published of "
    "experiments/products/preprocessing.py to the photos and give the arrays to load_ensemble(run).predict"
)
ExportFormat = Literal["onnx", "safetensors"]
