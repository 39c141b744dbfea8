"""What a user chooses among when a finished run is used; light, so that a command's `--help` needs nothing else."""

from __future__ import annotations

from typing import Literal

ModelChoice = Literal["ensemble", "best", "refit"]  # the folds' soft vote, the best fold's model, or the refit
DataPart = Literal["test", "train"]
Preprocessing = Literal["auto", "fashion-mnist", "as-published", "none"]
ExportFormat = Literal["onnx", "safetensors"]
