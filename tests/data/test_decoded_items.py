"""Pictures of other libraries: what holds for all of them, whatever gives them."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from fmnist_cv.data.decoded_items import Pictures
from fmnist_cv.data.decoding import Decoding
from fmnist_cv.errors import UserError


def test_pixels_in_the_cache_do_not_hide_a_picture_in_colour() -> None:
    """They were made grey, as it was asked for; without that, the first picture decides."""
    items: list[tuple[Any, int]] = [(Image.new("L", (4, 4), 7), 0), (Image.new("RGB", (4, 4), "red"), 1)]
    pictures = Pictures(2, items.__getitem__, "these pictures", state="unchanged", labels=[0, 1])
    assert pictures.images(Decoding(), channels=1).shape == (1, 4, 4)
    with pytest.raises(UserError, match=r"these pictures: image 1 .* is in colour, but image 0 is grey"):
        pictures.images(Decoding(), channels=None)
