"""The arrays of MedMNIST's `.npz` files, by the names that `ArrayDataModule` uses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fmnist_cv.errors import UserError

TRAIN = ("train_images", "train_labels", "val_images", "val_labels")
TEST = ("test_images", "test_labels")


def training_arrays(arrays: Mapping[str, np.ndarray], use_validation: bool) -> dict[str, np.ndarray]:
    """`images` and `labels` of the training images followed by the validation images.

    Args:
        arrays: those of the file.
        use_validation: also return `folds`, int64 (n,): 0 for the validation images, -1 for the others.

    Raises:
        UserError: an array is missing or has another shape than its counterpart, or images have several labels each.
    """
    parts = [name for name in ("train", "val") if f"{name}_images" in arrays or f"{name}_labels" in arrays]
    if use_validation and "val" not in parts:
        raise UserError("use_validation is true, but there are no val_images; leave it out")
    if missing := [
        f"{name}_{what}" for name in parts for what in ("images", "labels") if f"{name}_{what}" not in arrays
    ]:
        raise UserError(f"{' and '.join(missing)} are missing")
    images, labels = ([arrays[f"{name}_{what}"] for name in parts] for what in ("images", "labels"))
    shapes = [part.shape[1:] for part in images]
    if len(set(shapes)) > 1:
        raise UserError(f"train_images are of the shape {shapes[0]}, but val_images {shapes[1]}")
    folds = np.concatenate([np.full(len(part), i - 1) for i, part in enumerate(labels)])
    joined = {"images": np.concatenate(images), "labels": np.concatenate([one_each(part) for part in labels])}
    return joined | ({"folds": folds.astype(np.int64)} if use_validation else {})


def one_each(labels: np.ndarray) -> np.ndarray:
    """Labels (n, 1), as MedMNIST stores them, as (n,).

    Raises:
        UserError: images have several labels each.
    """
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise UserError(
            f"each image has {labels.shape[1]} labels; a classifier needs one: choose a column, save it as labels, and the "
            "images as images"
        )
    return labels[:, 0] if labels.ndim == 2 else labels
