"""The synthetic garments are reproducible, balanced, and neither trivial nor hopeless to tell apart."""

import numpy as np
import pytest

from fmnist_cv.data.synthetic_images import CLASS_NAMES, make_synthetic_images


def test_same_arguments_give_identical_arrays_whatever_the_global_state() -> None:
    np.random.seed(1)
    images, labels = make_synthetic_images(50, seed=3)
    np.random.seed(2)
    again, labels_again = make_synthetic_images(50, seed=3)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, labels_again)


def test_seeds_differ_in_images_and_order() -> None:
    images, labels = make_synthetic_images(50, seed=3)
    other, other_labels = make_synthetic_images(50, seed=4)
    assert (images != other).any(axis=(1, 2)).all()
    assert (labels != other_labels).any()


@pytest.mark.parametrize("n", [0, 1, 25, 1003])
def test_shapes_dtypes_and_balance(n: int) -> None:
    images, labels = make_synthetic_images(n, seed=0)
    assert images.shape == (n, 28, 28) and images.dtype == np.uint8
    assert labels.shape == (n,) and labels.dtype == np.int64
    counts = np.bincount(labels, minlength=len(CLASS_NAMES))
    assert len(counts) == len(CLASS_NAMES) == 10
    assert counts.max() - counts.min() <= 1


def test_no_image_is_blank_and_the_order_is_shuffled() -> None:
    images, labels = make_synthetic_images(500, seed=0)
    assert images.std(axis=(1, 2)).min() > 3
    assert (np.diff(labels) % 10 != 1).mean() > 0.5


def test_a_linear_model_is_well_above_chance_and_below_perfect() -> None:
    images, labels = make_synthetic_images(1500, seed=0)
    pixels = np.hstack([images.reshape(1500, -1) / 255, np.ones((1500, 1))])
    x, targets = pixels[:1000], np.eye(10)[labels[:1000]]
    ridge = np.linalg.solve(x.T @ x + 30 * np.eye(x.shape[1]), x.T @ targets)
    accuracy = ((pixels[1000:] @ ridge).argmax(axis=1) == labels[1000:]).mean()
    assert 0.3 < accuracy < 0.9
