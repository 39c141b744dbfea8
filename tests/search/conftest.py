"""A small search on synthetic images, as a mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def searched(tiny: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Three folds and one epoch per trial, without TensorBoard; four trials, no confirmation."""
    tiny["trainer"] |= {"max_epochs": 1, "logger": False}
    del tiny["log_dir"]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    return {
        "name": "study",
        "experiment": str(tmp_path / "tiny.yaml"),
        "log_dir": str(tmp_path / "logs"),
        "space": {
            "model.dropout": {"float": [0.0, 0.5]},
            "model.optimizer": {
                "choices": {
                    "adam": {
                        "value": {"class_path": "torch.optim.Adam"},
                        "space": {"model.optimizer.init_args.lr": {"float": [1e-4, 1e-1], "log": True}},
                    },
                    "sgd": {
                        "value": {"class_path": "torch.optim.SGD"},
                        "space": {"model.optimizer.init_args.lr": {"float": [1e-3, 1.0], "log": True}},
                    },
                }
            },
        },
        "trials": 4,
        "confirm": {"top": 0},
    }
