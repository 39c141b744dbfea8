"""Product photos are brought to 28x28 pixels in the two ways that the experiment compares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from experiments.products.preprocessing import preprocess
from fmnist_cv.data import photos
from fmnist_cv.errors import UserError


@pytest.fixture
def photo() -> Image.Image:
    image = Image.new("RGB", (60, 80), "white")
    image.paste((40, 60, 120), (0, 40, 60, 80))
    return image


def test_as_published_resizes_the_whole_photo(photo: Image.Image) -> None:
    image = preprocess(photo, "as-published")
    assert image.shape == (28, 28) and image[:13].max() == 0 and image[15:].min() > 150


def test_fashion_mnist_is_the_preprocessing_of_the_package(photo: Image.Image) -> None:
    assert (preprocess(photo, "fashion-mnist") == photos.preprocess(photo)).all()
    with pytest.raises(UserError, match="preprocessing is 'other'; it is one of fashion-mnist, as-published"):
        preprocess(photo, "other")  # type: ignore[arg-type]


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1))
def test_a_photo_of_any_size_becomes_28x28(width: int, height: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert preprocess(Image.fromarray(pixels), "as-published").shape == (28, 28)
