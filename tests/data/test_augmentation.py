"""Garments that are worn or seen from above: what changes, what stays, and that each image is drawn for itself."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from kornia import augmentation as kornia
from torch import nn
from torchvision import transforms
from torchvision.transforms import v2

from fmnist_cv.data import SyntheticDataModule
from fmnist_cv.data.augmentation import SeenFromAbove, Worn, refuse_batchwise
from fmnist_cv.data.synthetic_images import CLASS_NAMES, make_synthetic_images
from fmnist_cv.errors import UserError


@pytest.fixture(scope="module")
def garments() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = make_synthetic_images(400, seed=0)
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


class MyFlip(v2.RandomHorizontalFlip):
    """Goes by another name."""


class PerImage(nn.Module):
    """A user's own, which applies a transform of torchvision's to each image."""

    def __init__(self) -> None:
        super().__init__()
        self.flip = transforms.RandomHorizontalFlip()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.flip(image) for image in images])


@pytest.mark.parametrize(
    ("augmentation", "name"),
    [
        (transforms.RandomHorizontalFlip(), "RandomHorizontalFlip"),
        (v2.RandomHorizontalFlip(), "RandomHorizontalFlip"),
        (MyFlip(), "MyFlip"),
        (transforms.RandomCrop(28, padding=4), "RandomCrop"),
        (v2.RandomErasing(), "RandomErasing"),
        (v2.RandomAffine(20), "RandomAffine"),
        (transforms.RandomApply([transforms.GaussianBlur(3)]), "RandomApply"),
        (transforms.RandomChoice([transforms.CenterCrop(28), transforms.Pad(0)]), "RandomChoice"),
        (v2.Compose([v2.Identity(), v2.RandomRotation(10)]), "Compose"),
        (transforms.Compose([transforms.RandomRotation(10)]), "Compose"),
        (nn.Sequential(kornia.RandomHorizontalFlip(), nn.Sequential(v2.RandomVerticalFlip())), "RandomVerticalFlip"),
        (kornia.AugmentationSequential(nn.ModuleList([v2.RandomPerspective()])), "RandomPerspective"),
        ([kornia.RandomHorizontalFlip(), (v2.RandomResizedCrop(28),)], "RandomResizedCrop"),
    ],
)
def test_what_is_random_per_batch_is_refused(
    augmentation: Any, name: str, garments: tuple[torch.Tensor, torch.Tensor]
) -> None:
    states = torch.get_rng_state(), random.getstate()
    with pytest.raises(
        UserError,
        match=f"torchvision's {name} applies the same random change to all images of a batch; .*kornia.augmentation",
    ):
        refuse_batchwise([Worn(), augmentation], garments[0])
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


@pytest.mark.parametrize(
    "augmentation",
    [
        transforms.Normalize([0.5], [0.5]),
        v2.CenterCrop(24),
        v2.GaussianNoise(),
        PerImage(),
        kornia.RandomHorizontalFlip(),
        kornia.AugmentationSequential(kornia.RandomAffine(10)),
        v2.RandomCrop(99),  # cannot take the images, which is reported elsewhere
    ],
)
def test_what_draws_nothing_or_for_each_image_is_not(
    augmentation: Any, garments: tuple[torch.Tensor, torch.Tensor]
) -> None:
    refuse_batchwise([augmentation], garments[0])


def test_the_data_module_refuses_it_before_training() -> None:
    data = SyntheticDataModule(n_train=60, n_test=10, augment=[v2.RandomHorizontalFlip()])
    data.setup("test")  # a run that was made so can still be used
    with pytest.raises(UserError, match="applies the same random change to all images of a batch"):
        data.setup("fit")
