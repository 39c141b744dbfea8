"""Files of MedMNIST: training and validation images together, or the validation images as the fold that is held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmnist_cv.data import ArrayDataModule
from fmnist_cv.errors import UserError

RANDOM = np.random.default_rng(0)


def part(n: int, *shape: int) -> dict[str, np.ndarray]:
    return {
        "images": RANDOM.integers(0, 256, (n, *shape), dtype=np.uint8),
        "labels": np.arange(n)[:, None].astype("u1") % 3,
    }


def medmnist(folder: Path, **changes: Any) -> tuple[str, dict[str, np.ndarray]]:
    """A file with MedMNIST's names, and its arrays; None leaves one out."""
    parts = {"train": part(12, 28, 28, 3), "val": part(6, 28, 28, 3), "test": part(5, 28, 28, 3)}
    arrays = {f"{name}_{what}": array for name, of_part in parts.items() for what, array in of_part.items()}
    arrays = {key: value for key, value in (arrays | changes).items() if value is not None}
    np.savez(folder / "pathmnist.npz", **arrays)  # type: ignore[arg-type]
    return str(folder / "pathmnist.npz"), arrays


@pytest.mark.parametrize("use_validation", [False, True])
def test_training_and_validation_images_are_the_training_images(tmp_path: Path, use_validation: bool) -> None:
    path, arrays = medmnist(tmp_path)
    module = ArrayDataModule(path, use_validation=use_validation)
    train, test = module.train_images, module.test_images
    expected = np.concatenate([arrays["train_images"], arrays["val_images"]]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(train.images.numpy(), expected)
    assert train.labels.tolist() == [*np.arange(12) % 3, *np.arange(6) % 3] and train.class_names == ("0", "1", "2")
    if use_validation:
        assert train.folds is not None and train.folds.tolist() == [-1] * 12 + [0] * 6
    else:
        assert train.folds is None
    assert test is not None and test.labels.tolist() == [0, 1, 2, 0, 1] and module.data_name == "pathmnist"
    np.testing.assert_array_equal(test.images.numpy(), arrays["test_images"].transpose(0, 3, 1, 2))


def test_validation_and_test_images_need_not_be(tmp_path: Path) -> None:
    path, _ = medmnist(tmp_path, **dict.fromkeys(("val_images", "val_labels", "test_images", "test_labels")))
    module = ArrayDataModule(path)
    assert len(module.train_images) == 12 and module.test_images is None


@pytest.mark.parametrize(
    ("changes", "use_validation", "reason"),
    [
        ({"val_labels": None}, False, "val_labels are missing"),
        ({"train_images": None, "train_labels": np.arange(12)}, False, "train_images are missing"),
        ({"train_labels": np.ones((12, 14), "u1")}, False, "each image has 14 labels; a classifier needs one"),
        (
            {"val_images": np.zeros((6, 64, 64, 3), "u1")},
            False,
            r"train_images are of the shape \(28, 28, 3\), but val_images",
        ),
        ({"val_labels": np.arange(5)}, False, "labels must be 18 integers"),
        ({"val_images": None, "val_labels": None}, True, "use_validation is true, but there are no val_images"),
        (
            {"images": np.zeros((3, 28, 28), "u1")},
            False,
            r"holds \['images'\], which is not known; known are .*'train_images'",
        ),
        (
            {f"{name}_images": np.zeros((n, 28, 28, 28), "u1") for name, n in (("train", 12), ("val", 6))},
            False,
            "may have their channels in",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], use_validation: bool, reason: str
) -> None:
    path, _ = medmnist(tmp_path, **changes)
    with pytest.raises(UserError, match=reason):
        _ = ArrayDataModule(path, use_validation=use_validation).train_images


def test_a_fixed_validation_set_is_asked_only_of_files_that_have_one(tmp_path: Path) -> None:
    images, labels = np.zeros((6, 8, 8), "u1"), np.arange(6) % 2
    with pytest.raises(UserError, match=r"use_validation is for the val_images of an \.npz file; arrays have none"):
        ArrayDataModule(images=images, labels=labels, use_validation=True)
    np.savez(tmp_path / "own.npz", images=images, labels=labels)
    with pytest.raises(UserError, match=r"use_validation is true, but .*own\.npz has no val_images; leave it out"):
        _ = ArrayDataModule(str(tmp_path / "own.npz"), use_validation=True).train_images
