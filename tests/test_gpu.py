"""What only a GPU can show; run with FMNIST_CV_TEST_GPU=0 python -m pytest -m gpu tests/test_gpu.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmnist_cv import cross_validate
from fmnist_cv.data import module
from fmnist_cv.inference import load_ensemble

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device; run make test-gpu where there is one"),
]


@pytest.fixture
def on_gpu(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny["model"] = {"class_path": "fmnist_cv.models.BatchNormCNN"}
    tiny["trainer"] = {"max_epochs": 3, "accelerator": "gpu", "devices": 1}
    return tiny


def test_folds_run_on_the_gpu_and_say_so(on_gpu: dict[str, Any]) -> None:
    result = cross_validate(on_gpu, run="gpu")
    assert torch.cuda.get_device_name(0) in result.summary["environment"]["device"]
    assert not np.isnan(result.out_of_fold()).any()


def test_two_folds_share_a_gpu(on_gpu: dict[str, Any]) -> None:
    alone = cross_validate(on_gpu, {"trainer.precision": "32-true"}, run="alone")
    beside = cross_validate(on_gpu, {"trainer.precision": "32-true", "cv.workers": 3}, run="beside")
    assert abs(alone.mean - beside.mean) < 0.1


def test_deterministic_algorithms_repeat_exactly(on_gpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    runs = [cross_validate(on_gpu, {"trainer.deterministic": True}, run=name) for name in ("first", "second")]
    np.testing.assert_array_equal(runs[0].out_of_fold("last"), runs[1].out_of_fold("last"))


def test_the_networks_predict_on_the_gpu_as_they_were_scored_and_on_the_cpu_nearly_so(on_gpu: dict[str, Any]) -> None:
    result = cross_validate(on_gpu, {"trainer.precision": "32-true"}, run="predicts")
    images, written = result.data.test_images.images, result.test_probabilities()
    ensemble = load_ensemble(result)
    assert ensemble.device.type == "cuda"
    assert ensemble.predict(images).probabilities == pytest.approx(written, abs=1e-4)
    assert load_ensemble(result, accelerator="cpu").predict(images).probabilities == pytest.approx(written, abs=1e-2)


def test_a_device_that_is_not_there_is_refused(on_gpu: dict[str, Any]) -> None:
    from fmnist_cv.errors import UserError

    with pytest.raises(UserError, match="there is no device"):
        cross_validate(on_gpu, {"trainer.devices": [99]})
    assert not list(Path(on_gpu["log_dir"]).glob("*/*"))


def test_images_that_do_not_fit_on_the_gpu_are_copied_ahead_and_train_the_same(
    on_gpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = {"trainer.precision": "32-true", "trainer.deterministic": True}
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    kept = cross_validate(on_gpu, overrides, run="kept")
    monkeypatch.setattr(module, "SHARE_ON_DEVICE", 0.0)
    copied = cross_validate(on_gpu, overrides, run="copied")
    np.testing.assert_array_equal(kept.out_of_fold(), copied.out_of_fold())
    np.testing.assert_array_equal(kept.test_probabilities(), copied.test_probabilities())
