"""A finished run on synthetic images, with a refit, and copies of it to be damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fmnist_cv import cross_validate
from fmnist_cv.data.synthetic_images import make_synthetic_images

EXPERIMENT = {
    "name": "tiny",
    "cv": {"n_splits": 3, "workers": 1},
    "model": {"class_path": "fmnist_cv.models.DenseNetwork", "init_args": {"hidden": [32], "dropout": 0.2}},
    "data": {
        "class_path": "fmnist_cv.data.SyntheticDataModule",
        "init_args": {"n_train": 300, "n_test": 100, "batch_size": 32, "scaling": "standardise"},
    },
    "trainer": {"max_epochs": 3, "accelerator": "cpu", "precision": "32-true", "logger": False},
}


@pytest.fixture(scope="session")
def run(once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """One for all test processes; to be read only."""

    def fill(folder: Path) -> None:
        cross_validate({**EXPERIMENT, "log_dir": str(folder)}, run="finished", refit=True)

    return once("inference", fill) / "tiny" / "finished"


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    """A copy, to be written to and damaged."""
    return Path(shutil.copytree(run, tmp_path / "run", symlinks=True))


@pytest.fixture
def garments(tmp_path: Path) -> Callable[[int], list[Path]]:
    """Draws garments into folder/0.png ..., light on black, 28x28."""

    def draw(n: int) -> list[Path]:
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        paths = [folder / f"{i}.png" for i in range(n)]
        for path, pixels in zip(paths, make_synthetic_images(n, seed=5)[0], strict=True):
            Image.fromarray(pixels).save(path)
        return paths

    return draw
