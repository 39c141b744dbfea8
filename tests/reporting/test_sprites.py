"""Thumbnails in sheets, cut out again."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from fmnist_cv.reporting import sprites


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_in_its_place_without_loss(channels: int, noise: Callable[..., np.ndarray]) -> None:
    images = noise(1100, channels, 5, 7)
    sheets = sprites.pack(torch.from_numpy(images), None)
    assert len(sheets.sheets) == 2 and sheets.size == sum(map(len, sheets.sheets))
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet)))) for sheet in sheets.sheets]
    assert [sheet.shape for sheet in decoded] == [(32 * 5, 32 * 7, 3), (3 * 5, 32 * 7, 3)]
    for i in (0, 33, 1023, 1024, 1099):
        row, column = divmod(i % 1024, 32)
        tile = decoded[i // 1024][row * 5 : row * 5 + 5, column * 7 : column * 7 + 7]
        assert (tile == images[i].transpose(1, 2, 0)).all()


def test_large_images_are_scaled_by_area_and_small_ones_kept() -> None:
    large = torch.zeros(3, 1, 128, 64, dtype=torch.uint8)
    large[:, :, :4, :4] = 200
    small = sprites.thumbnails(large)
    assert small.shape == (3, 1, 32, 16) and small.dtype == torch.uint8
    assert small[0, 0, 0].tolist() == [200] + [0] * 15
    assert sprites.thumbnails(large[:, :, :20, :20]).shape == (3, 1, 20, 20)
    assert sprites.thumbnails(large[:, :, :, :1]).shape == (3, 1, 32, 1)


def test_quality_is_given_up_only_where_the_limit_asks_for_it(noise: Callable[..., np.ndarray]) -> None:
    images = torch.from_numpy(noise(64, 1, 28, 28))
    size = {quality: sprites.pack(images, quality).size for quality in sprites.QUALITIES}
    assert sprites.pack_within(images, size[None]).quality is None
    assert sprites.pack_within(images, size[None] - 1).quality == 95
    assert sprites.pack_within(images, size[75]).quality == 75
    assert sprites.pack_within(images, 0).quality == 50
