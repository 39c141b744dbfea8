"""A quiet Trainer and a logger that keeps what it is given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.loggers import Logger


class Kept(Logger):
    """Keeps (step, value) of each metric."""

    name = version = "kept"

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        for name, value in metrics.items():
            self.values[name].append((step, value))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


@pytest.fixture
def logger() -> Kept:
    return Kept()


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., L.Trainer]:
    """Makes a Trainer for one epoch on the CPU that prints and writes nothing."""

    def make(**options: Any) -> L.Trainer:
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        return L.Trainer(**{"max_epochs": 1, "accelerator": "cpu", "default_root_dir": tmp_path, **quiet, **options})

    return make
