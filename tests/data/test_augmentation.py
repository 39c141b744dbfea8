"""Garments that are worn or seen from above: what changes, what stays, and that each image is drawn for itself."""

from __future__ import annotations

import pytest
import torch

from fmnist_cv.data.augmentation import SeenFromAbove, Worn
from fmnist_cv.data.synthetic_garments import CLASS_NAMES, draw_garments


@pytest.fixture(scope="module")
def garments() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = draw_garments(400, seed=0)
    return torch.from_numpy(images)[:, None].float() / 255, torch.from_numpy(labels)


def rectangle(height: int, width: int) -> torch.Tensor:
    image = torch.zeros(1, 1, 28, 28)
    top, left = (28 - height) // 2, (28 - width) // 2
    image[..., top : top + height, left : left + width] = 0.5
    return image


@pytest.mark.parametrize("augmentation", [Worn(1.0, 1.0), SeenFromAbove(1.0)])
def test_images_stay_images(augmentation: torch.nn.Module, garments: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, _ = garments
    before = images.clone()
    changed = augmentation(images)
    assert changed.shape == images.shape and changed.dtype == torch.float32 and torch.equal(images, before)
    assert changed.min() >= 0 and changed.max() <= 1
    torch.manual_seed(1)
    first = augmentation(images)
    torch.manual_seed(1)
    assert torch.equal(augmentation(images), first) and not torch.equal(augmentation(images), first)


def test_what_does_not_fill_the_height_is_not_worn(garments: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = garments
    flat = rectangle(10, 26).repeat(50, 1, 1, 1)
    assert torch.equal(Worn(1.0)(flat), flat)
    changed = (Worn(1.0)(images) != images).flatten(1).any(1)
    assert changed[labels == CLASS_NAMES.index("Trouser")].float().mean() > 0.5
    assert torch.equal(Worn(0.0)(images), images)


def test_a_worn_garment_is_smaller_and_drawn_anew_for_each_image() -> None:
    same = rectangle(28, 20).repeat(64, 1, 1, 1)
    worn = Worn(1.0, arms=0.0)(same)
    assert len({image.numpy().tobytes() for image in worn}) == 64
    garment_pixels = (worn == 0.5).sum((1, 2, 3))
    assert (garment_pixels < 28 * 20).all() and (garment_pixels > 100).all()


def test_what_is_flat_is_stretched_within_its_image() -> None:
    flat, square = rectangle(10, 26).repeat(64, 1, 1, 1), rectangle(28, 28).repeat(64, 1, 1, 1)
    rows = (SeenFromAbove(1.0, most=1.5)(flat)[:, 0].amax(2) > 0.1).sum(1)
    assert rows.min() >= 10 and rows.max() <= 16 and len(rows.unique()) > 3
    assert torch.allclose(SeenFromAbove(1.0)(square), square)
    assert torch.allclose(SeenFromAbove(0.0)(flat), flat)
