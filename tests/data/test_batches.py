"""Batches: every index once, in an order that the seed alone decides; scaling measured on the training part."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from fmnist_cv.data import batches
from fmnist_cv.data.batches import ImageBatches, Scaling, ScalingName
from fmnist_cv.data.images import Images

NAMES: tuple[ScalingName, ...] = ("unit", "minmax", "standardise", "none")


def colour_images(n: int = 40, seed: int = 0) -> np.ndarray:
    """uint8 (n, 3, 5, 4), every channel of another range."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(low, high, (n, 5, 4)) for low, high in ((0, 90), (20, 256), (7, 31))], 1).astype("u1")


def stored(images: np.ndarray) -> Images:
    return Images(torch.from_numpy(images), torch.zeros(len(images), dtype=torch.int64), ("any",))


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


# -- ahead of use -------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 12), used=st.integers(0, 12))
def test_what_is_made_ahead_comes_in_order_and_never_far_ahead(n: int, used: int) -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for i in range(n):
            asked.append(i)
            yield i

    results = batches.made_ahead(lambda i: (i, threading.get_ident()), items())
    got = [*islice(results, used)]
    assert [i for i, _ in got] == [*range(min(n, used))]
    assert threading.get_ident() not in [thread for _, thread in got]
    assert len(asked) <= len(got) + batches.AHEAD
    results.close()  # as where a pass ends early


def test_an_error_in_a_batch_that_is_made_ahead_is_raised_in_its_place() -> None:
    results = batches.made_ahead(lambda x: 6 // x, [3, 2, 0, 1])
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


# -- scaling ------------------------------------------------------------------------------------------------


def by_numpy(name: ScalingName, images: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The scaled images, float64, one channel after the other."""
    unit = {"uint8": 255, "uint16": 65535, "float32": 1}[str(images.dtype)]
    scaled = images.astype(np.float64)
    for channel in range(images.shape[1]):
        pixels = images[train, channel].astype(np.float64)
        shift, scale = {
            "unit": (0, unit),
            "none": (0, 1),
            "minmax": (pixels.min(), pixels.max() - pixels.min()),
            "standardise": (pixels.mean(), pixels.std()),
        }[name]
        scaled[:, channel] = (scaled[:, channel] - shift) / scale
    return scaled


def of_kind(kind: str) -> np.ndarray:
    """`colour_images` as 8 bits, 16 bits, or floats with a fraction and a sign."""
    images = colour_images().astype(kind)
    return {"u1": images, "u2": images * 201, "f4": images / 7 - 3}[kind]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("name", NAMES)
def test_scaling_agrees_with_numpy(name: ScalingName, kind: str, channels: int) -> None:
    images, train = of_kind(kind)[:, -channels:], np.arange(0, 40, 3)
    scaling = Scaling.fit(name, stored(images), train)
    before = images.copy()
    scaled = scaling(torch.from_numpy(images))
    assert scaled.dtype == torch.float32 and scaled.shape == images.shape
    np.testing.assert_allclose(scaled.numpy(), by_numpy(name, images, train), rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(images, before)


def test_standardise_is_exact_over_many_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (12_345, 1, 2, 2), dtype=np.uint8)
    train = np.arange(1, 12_345)
    scaling = Scaling.fit("standardise", stored(images), train)
    assert scaling.shift[0] == pytest.approx(images[1:].mean(), rel=1e-12)
    assert scaling.scale[0] == pytest.approx(images[1:].std(), rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(offset=st.integers(-1_000_000, 1_000_000), parts=st.integers(1, 8), seed=st.integers(0, 100))
def test_floats_are_measured_in_parts_without_losing_digits(offset: int, parts: int, seed: int) -> None:
    images = np.random.default_rng(seed).normal(offset, 10, (40, 2, 3, 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_FIT_PIXELS", 9 * parts)
        scaling = Scaling.fit("standardise", stored(images), np.arange(40))
    pixels = images.astype(np.float64).transpose(1, 0, 2, 3).reshape(2, -1)
    np.testing.assert_allclose(scaling.shift, pixels.mean(1), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(scaling.scale, pixels.std(1), rtol=1e-9)


def test_images_of_a_mapped_file_are_measured_by_their_place(tmp_path: Path) -> None:
    images = colour_images()
    images.tofile(tmp_path / "pixels")
    mapped = torch.from_numpy(np.memmap(tmp_path / "pixels", np.uint8, "c", shape=images.shape))
    whole = Images(mapped, torch.arange(40), ("any",), stored_digest="d")
    chosen = whole.subset(torch.tensor([7, 3, 30]))
    assert Scaling.fit("minmax", chosen, np.array([2, 0])) == Scaling.fit("minmax", stored(images), np.array([30, 7]))


@pytest.mark.parametrize("name", NAMES)
def test_scaling_is_measured_on_the_training_part_only(name: ScalingName) -> None:
    images, train = colour_images(), np.arange(30)
    scaling = Scaling.fit(name, stored(images), train)
    changed = images.copy()
    changed[30:] = 255 - changed[30:]
    assert Scaling.fit(name, stored(changed), train) == scaling
    changed[:30] //= 2
    assert (Scaling.fit(name, stored(changed), train) != scaling) == (name in ("minmax", "standardise"))


@pytest.mark.parametrize("name", NAMES)
def test_scaling_survives_its_state_dict(name: ScalingName) -> None:
    scaling = Scaling.fit(name, stored(colour_images()), np.arange(40))
    state = scaling.state_dict()
    assert all(type(number) is float for numbers in state.values() for number in numbers)
    assert Scaling.from_state_dict(state) == scaling


@pytest.mark.parametrize("name", NAMES)
def test_images_of_one_single_grey_stay_finite(name: ScalingName) -> None:
    for images in (np.full((4, 1, 3, 3), 77, dtype) for dtype in ("u1", "u2", "f4")):
        assert Scaling.fit(name, stored(images), np.arange(4))(torch.from_numpy(images)).isfinite().all()
