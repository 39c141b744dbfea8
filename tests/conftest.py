"""Shared by all tests: a fixed seed, no accelerator, no network, and small experiments on drawn garments."""

from __future__ import annotations

import os

os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("FMNIST_CV_TEST_GPU", "")  # before torch looks for devices

import math
import socket
from pathlib import Path
from typing import Any

import pytest

from fmnist_cv import runtime
from fmnist_cv.runtime import prepare_process, seed_everything


@pytest.fixture(autouse=True)
def _same_seed_and_threads() -> None:
    prepare_process(threads=1)
    seed_everything(0)


@pytest.fixture(autouse=True)
def _no_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests decide how many cores there are, in a container with a quota, too."""
    monkeypatch.setattr(runtime, "cpu_quota", lambda: math.inf)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail at once on any connection to another host."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests must not use the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, Any]:
    """A 3-fold experiment that takes a second or two: a dense network on 300 drawn garments, as a mapping."""
    return {
        "name": "tiny",
        "log_dir": str(tmp_path / "logs"),
        "cv": {"n_splits": 3, "workers": 1},
        "model": {"class_path": "fmnist_cv.models.DenseNetwork", "init_args": {"hidden": [32], "dropout": 0.2}},
        "data": {
            "class_path": "fmnist_cv.data.SyntheticDataModule",
            "init_args": {"n_train": 300, "n_test": 100, "batch_size": 32},
        },
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "precision": "32-true"},
    }
