"""Finished runs to report on: one of synthetic images for all tests, and small ones of arrays, made in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmnist_cv import CrossValidationResult, cross_validate
from fmnist_cv.reporting.page import write_report
from fmnist_cv.runtime import prepare_process

MakeRun = Callable[..., CrossValidationResult]


@pytest.fixture(scope="session")
def garments(once: Callable[[str, Callable[[Path], None]], Path]) -> CrossValidationResult:
    """Two folds of 400 garments and 200 test images, with its report, for all test processes; to be read only."""
    experiment = {
        "name": "garments",
        "cv": {"n_splits": 2, "workers": 1},
        "model": {"class_path": "fmnist_cv.models.DenseNetwork", "init_args": {"hidden": [32]}},
        "data": {
            "class_path": "fmnist_cv.data.SyntheticDataModule",
            "init_args": {"n_train": 400, "n_test": 200, "batch_size": 32},
        },
        "trainer": {"max_epochs": 8, "accelerator": "cpu", "precision": "32-true", "logger": False},
    }

    def fill(folder: Path) -> None:
        prepare_process(threads=1)
        write_report(cross_validate({**experiment, "log_dir": str(folder)}, run="run"))

    return CrossValidationResult.load(once("garments", fill) / "garments" / "run")


@pytest.fixture(scope="session")
def make_run_in() -> MakeRun:
    """Runs one epoch of a linear network on arrays: `make_run_in(folder, {"images": ..., "labels": ...}, **dotted keys)`."""

    def make(folder: Path, arrays: dict[str, np.ndarray], **overrides: Any) -> CrossValidationResult:
        np.savez(folder / "my.npz", **arrays)  # type: ignore[arg-type]
        shape = {
            "in_features": int(np.prod(arrays["images"].shape[1:])),
            "n_classes": len(arrays.get("class_names", range(arrays["labels"].max() + 1))),
        }
        experiment = {
            "name": "small",
            "log_dir": str(folder / "logs"),
            "cv": {"n_splits": 2, "workers": 1},
            "model": {"class_path": "fmnist_cv.models.LinearClassifier", "init_args": shape},
            "data": {
                "class_path": "fmnist_cv.data.ArrayDataModule",
                "init_args": {"path": str(folder / "my.npz"), "batch_size": 16},
            },
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "precision": "32-true", "logger": False},
        }
        return cross_validate(experiment, {key.replace("__", "."): value for key, value in overrides.items()})

    return make


@pytest.fixture
def make_run(make_run_in: MakeRun, tmp_path: Path) -> MakeRun:
    """The same in a folder of the test's own: `make_run(arrays, **dotted keys)`."""
    return lambda arrays, **overrides: make_run_in(tmp_path, arrays, **overrides)


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """uint8 noise of a shape."""
    return lambda *shape: np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
