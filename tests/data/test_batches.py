"""Batches: every index once, in an order that the seed alone decides; scaling measured on the training part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from fmnist_cv.data.batches import ImageBatches, Scaling, ScalingName
from fmnist_cv.data.images import Images

NAMES: tuple[ScalingName, ...] = ("unit", "minmax", "standardise", "none")


def colour_images(n: int = 40, seed: int = 0) -> np.ndarray:
    """uint8 (n, 3, 5, 4), every channel of another range."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(low, high, (n, 5, 4)) for low, high in ((0, 90), (20, 256), (7, 31))], 1).astype("u1")


# -- order --------------------------------------------------------------------------------------------------


def order_of(batches: ImageBatches) -> list[int]:
    """The indices that one pass goes through, where an image's label is its index."""
    return [int(label) for _, labels in batches for label in labels]


def numbered_images(n: int) -> Images:
    return Images(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.arange(n), ("any",))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 60), size=st.integers(1, 25), seed=st.none() | st.integers(0, 2**40), drop_last=st.booleans())
def test_every_index_comes_once(n: int, size: int, seed: int | None, drop_last: bool) -> None:
    indices = torch.arange(n) * 3 + 5
    batches = ImageBatches(numbered_images(200), indices, size, None if seed is None else lambda: seed, drop_last)
    made = list(batches)
    assert len(made) == len(batches) == (n // size if drop_last else -(-n // size))
    assert all(len(images) == len(labels) == size for images, labels in made[:-1])
    seen = order_of(batches)
    if drop_last:
        assert len(set(seen)) == len(seen) == n // size * size and set(seen) <= set(indices.tolist())
    else:
        assert sorted(seen) == indices.tolist()


def test_the_order_depends_on_the_seed_only() -> None:
    def order(seed: int) -> list[int]:
        torch.manual_seed(torch.seed())  # whatever the global generator holds
        return order_of(ImageBatches(numbered_images(100), torch.arange(100), 7, lambda: seed))

    assert order(1) == order(1) != order(2)
    assert order(1) != list(range(100))


def test_the_seed_is_asked_for_at_each_pass() -> None:
    seeds = iter([1, 2, 1])
    batches = ImageBatches(numbered_images(50), torch.arange(50), 8, lambda: next(seeds))
    first, second, third = (order_of(batches) for _ in range(3))
    assert first == third != second


def test_without_a_seed_the_order_is_kept() -> None:
    assert order_of(ImageBatches(numbered_images(10), torch.tensor([5, 3, 9, 1]), 3)) == [5, 3, 9, 1]


# -- batches ------------------------------------------------------------------------------------------------


def test_batches_are_the_images_and_labels_of_the_indices() -> None:
    data = Images.from_arrays(colour_images(), np.arange(40) % 4)
    order = torch.tensor([3, 39, 0, 17, 3])
    batches = list(ImageBatches(data, order, 2))
    assert batches[0][0].dtype == torch.uint8 and batches[0][0].shape == (2, 3, 5, 4)
    torch.testing.assert_close(torch.cat([images for images, _ in batches]), data.images[order])
    torch.testing.assert_close(torch.cat([labels for _, labels in batches]), data.labels[order])


def test_going_through_the_images_leaves_the_global_generator_alone() -> None:
    data = Images.from_arrays(colour_images(), np.arange(40) % 4)
    batches = ImageBatches(data, torch.arange(40), 7, lambda: 3)
    before = torch.get_rng_state()
    assert sum(len(labels) for _ in range(2) for _, labels in batches) == 80
    assert torch.equal(before, torch.get_rng_state())


# -- scaling ------------------------------------------------------------------------------------------------


def by_numpy(name: ScalingName, images: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The scaled images, float64, one channel after the other."""
    scaled = images.astype(np.float64)
    for channel in range(images.shape[1]):
        pixels = images[train, channel].astype(np.float64)
        shift, scale = {
            "unit": (0, 255),
            "none": (0, 1),
            "minmax": (pixels.min(), pixels.max() - pixels.min()),
            "standardise": (pixels.mean(), pixels.std()),
        }[name]
        scaled[:, channel] = (scaled[:, channel] - shift) / scale
    return scaled


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_scaling_agrees_with_numpy(name: ScalingName, channels: int) -> None:
    images, train = colour_images()[:, -channels:], np.arange(0, 40, 3)
    scaling = Scaling.fit(name, torch.from_numpy(images), train)
    scaled = scaling(torch.from_numpy(images))
    assert scaled.dtype == torch.float32 and scaled.shape == images.shape
    np.testing.assert_allclose(scaled.numpy(), by_numpy(name, images, train), rtol=1e-5, atol=1e-6)


def test_standardise_is_exact_over_many_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (12_345, 1, 2, 2), dtype=np.uint8)
    train = np.arange(1, 12_345)
    scaling = Scaling.fit("standardise", torch.from_numpy(images), train)
    assert scaling.shift[0] == pytest.approx(images[1:].mean(), rel=1e-12)
    assert scaling.scale[0] == pytest.approx(images[1:].std(), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_scaling_is_measured_on_the_training_part_only(name: ScalingName) -> None:
    images, train = colour_images(), np.arange(30)
    scaling = Scaling.fit(name, torch.from_numpy(images), train)
    changed = images.copy()
    changed[30:] = 255 - changed[30:]
    assert Scaling.fit(name, torch.from_numpy(changed), train) == scaling
    changed[:30] //= 2
    assert (Scaling.fit(name, torch.from_numpy(changed), train) != scaling) == (name in ("minmax", "standardise"))


@pytest.mark.parametrize("name", NAMES)
def test_scaling_survives_its_state_dict(name: ScalingName) -> None:
    scaling = Scaling.fit(name, torch.from_numpy(colour_images()), np.arange(40))
    state = scaling.state_dict()
    assert all(type(number) is float for numbers in state.values() for number in numbers)
    assert Scaling.from_state_dict(state) == scaling


@pytest.mark.parametrize("name", NAMES)
def test_images_of_one_single_grey_stay_finite(name: ScalingName) -> None:
    images = torch.full((4, 1, 3, 3), 77, dtype=torch.uint8)
    assert Scaling.fit(name, images, np.arange(4))(images).isfinite().all()
