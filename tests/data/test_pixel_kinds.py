"""Images of 8 bits in colours, of 16 bits, and floats of many channels: from training to prediction, report and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from fmnist_cv import CrossValidationResult, cross_validate, evaluate_run, load_exported
from fmnist_cv.data import ArrayDataModule
from fmnist_cv.data.pixel_kinds import KINDS, UNIT, as_pictures, noise
from fmnist_cv.errors import UserError
from fmnist_cv.inference import export_run, load_ensemble
from fmnist_cv.reporting.page import write_report
from fmnist_cv.reporting.tensorboard import write_tensorboard

# dtype, (channels, height, width)
SETS: dict[str, tuple[str, tuple[int, int, int]]] = {
    "colours": ("uint8", (3, 40, 36)),
    "16 bits": ("uint16", (1, 12, 10)),
    "floats": ("float32", (5, 8, 9)),
}


def made_up(dtype: str, shape: tuple[int, int, int], n: int = 60) -> dict[str, np.ndarray]:
    """Two classes, the second brighter."""
    labels = np.arange(n) % 2
    images = np.random.default_rng(0).random((n, *shape)) * 0.6 + 0.4 * labels[:, None, None, None]
    unit = UNIT[KINDS[dtype]]
    images = (images * unit).astype(dtype) if unit > 1 else (4 * images - 1).astype(dtype)
    return {"images": images[:40], "labels": labels[:40], "test_images": images[40:], "test_labels": labels[40:]}


@pytest.fixture(params=SETS, ids=lambda name: name.replace(" ", "_"))
def run(request: pytest.FixtureRequest, quick: dict[str, Any], tmp_path: Path, one_core: None) -> CrossValidationResult:
    dtype, shape = SETS[request.param]
    np.savez(tmp_path / "own.npz", **made_up(dtype, shape))  # type: ignore[arg-type]
    model = {"hidden": [8], "in_features": int(np.prod(shape)), "n_classes": 2}
    quick["model"]["init_args"] = model
    quick["data"] = {
        "class_path": "fmnist_cv.data.ArrayDataModule",
        "init_args": {"path": str(tmp_path / "own.npz"), "batch_size": 8, "scaling": "standardise"},
    }
    quick["cv"]["n_splits"], quick["trainer"]["max_epochs"] = 2, 1
    return cross_validate(quick, run="run")


def test_a_run_is_evaluated_reported_and_exported(run: CrossValidationResult, tmp_path: Path) -> None:
    test, ensemble = run.test_images, load_ensemble(run)
    assert test is not None and ensemble.dtype == test.dtype
    stored = run.test_probabilities()
    assert stored is not None
    np.testing.assert_array_equal(ensemble.predict(test).probabilities, stored)
    np.testing.assert_array_equal(ensemble.predict(test.images.numpy().transpose(0, 2, 3, 1)).probabilities, stored)
    found, _ = evaluate_run(run.path)
    assert found["n"] == 20 and found["seen_in_training"] == 0
    assert found["against_the_run"] is not None and found["against_the_run"]["other_answers"] == 0
    trained_on, _ = evaluate_run(
        run.path, ArrayDataModule(images=run.data.train_images.images[:7], labels=[0, 1] * 3 + [0])
    )
    assert trained_on["seen_in_training"] == 7
    assert write_report(run).stat().st_size > 10_000
    assert any(write_tensorboard(run).iterdir())
    export_run(run.path, "safetensors", out=tmp_path / "exported")
    read = load_exported(tmp_path / "exported")
    assert read.dtype == test.dtype
    np.testing.assert_allclose(read.predict(test).probabilities, stored, atol=1e-6)
    other = torch.float32 if test.dtype == torch.uint8 else torch.uint8
    with pytest.raises(UserError, match=f"images must be {str(test.dtype)[6:]}, as those .* trained on, got"):
        ensemble.predict(test.images.to(other))


def test_the_onnx_file_takes_the_pixels_as_they_are_stored(run: CrossValidationResult, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    files, findings = export_run(run.path, "onnx", out=tmp_path / "exported")
    assert findings[0].startswith("onnxruntime gives the same predictions for 20 images")
    (images,) = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"]).get_inputs()
    assert (
        images.type
        == {"uint8": "tensor(uint8)", "uint16": "tensor(uint16)", "float32": "tensor(float)"}[
            str(run.data.train_images.images.dtype)[6:]
        ]
    )


# -- noise and pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", UNIT)
def test_noise_covers_the_range_and_depends_on_the_seed(dtype: torch.dtype) -> None:
    made = noise(50, (2, 20, 20), dtype, seed=1)
    assert made.dtype == dtype and made.shape == (50, 2, 20, 20)
    shares = made.double() / UNIT[dtype]
    assert 0 <= shares.min() < 0.01 and 0.99 < shares.max() <= 1 and abs(shares.mean() - 0.5) < 0.01
    assert torch.equal(made, noise(50, (2, 20, 20), dtype, seed=1))
    assert not torch.equal(made, noise(50, (2, 20, 20), dtype, seed=2))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([*UNIT]), st.integers(1, 5), st.integers(0, 3))
def test_pictures_are_grey_or_rgb_bytes_in_the_order_of_the_pixels(dtype: torch.dtype, channels: int, n: int) -> None:
    images = noise(n, (channels, 4, 3), dtype, seed=0)
    shown = as_pictures(images)
    assert shown.dtype == torch.uint8 and shown.shape == (n, 1 if channels < 3 else 3, 4, 3)
    pixels, values = images[:, : shown.shape[1]].double().flatten(), shown.flatten().int()
    assert (values[pixels.argsort()].diff() >= 0).all()
    torch.testing.assert_close(values.double() / 255, pixels / UNIT[dtype], atol=1 / 255, rtol=0)


def test_floats_beyond_0_to_1_are_shown_between_the_smallest_and_the_largest() -> None:
    assert as_pictures(torch.tensor([-3.0, 1.0, 5.0]).view(1, 1, 1, 3)).flatten().tolist() == [0, 128, 255]
    assert as_pictures(torch.tensor([0.0, 0.2, 0.4]).view(1, 1, 1, 3)).flatten().tolist() == [0, 51, 102]
