"""Augmentations that make images of single garments resemble product photos, and a check that augmentations are random
per image instead of per batch."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmnist_cv.errors import UserError

_FOREGROUND = 0.1  # pixels above it are part of the garment


class Worn(nn.Module):
    """Show garments on a person: smaller, in front of a schematic head, arms and legs, or of a body and shoes.

    In Fashion-MNIST a garment fills the image; in product photos a person often wears it. Only garments that reach from
    the top to the bottom of the image change (shirts, trousers, dresses, coats), so this augmentation must come before
    any that makes them smaller. Garments narrower than half the image are taken for trousers with probability 0.5 and
    placed below a body instead of below a head. Sizes, positions and grey values are random for each image.

    Args:
        p: probability of changing an image, in [0, 1], if its garment fills the height.
        arms: probability of visible arms, in [0, 1].
    """

    def __init__(self, p: float = 0.8, arms: float = 0.9) -> None:
        super().__init__()
        self.p, self.arms = p, arms

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 (b, 1, h, w) in [0, 1] with background 0; returns the same shape and dtype."""
        person = _Person(images)
        high = (images[:, 0, :2].amax((1, 2)) > _FOREGROUND) & (images[:, 0, -2:].amax((1, 2)) > _FOREGROUND)
        garment = person.dress(images)[:, 0]
        behind = torch.where(person.is_below_body, person.body_and_shoes(), person.head_arms_and_legs(self.arms))
        worn = torch.where(garment > 0.04, garment, behind.clamp(0, 1))
        chosen = high & (torch.rand(len(images), device=images.device) < self.p)
        return torch.where(chosen.view(-1, 1, 1, 1), worn[:, None], images)


class _Person:
    """A schematic person for each image of a batch.

    Lengths and positions are fractions of the image's height; positions are measured from the top edge.
    """

    def __init__(self, images: Tensor) -> None:
        self._shape, self._device = images.shape, images.device
        _, _, height, width = images.shape
        self._y = ((torch.arange(height, device=self._device) + 0.5) / height).view(1, height, 1)
        columns = (torch.arange(width, device=self._device) + 0.5) / width - 0.5
        columns_used = (images[:, 0].amax(1) > _FOREGROUND).sum(1).view(-1, 1, 1)
        self.is_below_body = self._draw(0, 1) < 0.5 * (columns_used < width / 2)
        self.size, self.widening = self._draw(0.55, 0.9), self._draw(0.9, 1.2)
        self.half_width = columns_used / width / 2 * self.size * self.widening
        free = 1 - self.size
        self.top = free * torch.where(self.is_below_body, self._draw(0.55, 0.95), self._draw(0.3, 0.8))
        self.bottom = self.top + self.size
        self._x = columns.view(1, 1, width) - self._draw(-0.04, 0.04)
        self._side = self._x.abs()

    def _draw(self, low: float, high: float) -> Tensor:
        """A random number per image, uniform in [low, high): float32 (b, 1, 1)."""
        return low + (high - low) * torch.rand(self._shape[0], 1, 1, device=self._device)

    def _cloth(self) -> Tensor:
        """A random grey value per image, with noise: float32 (b, h, w)."""
        grain = torch.rand(self._shape[0], *self._shape[2:], device=self._device)
        return self._draw(0.05, 0.95) * (0.85 + 0.3 * grain)

    def _oval(self, middle: Tensor, half_width: Tensor, half_height: Tensor) -> Tensor:
        across, along = self._x / half_width.clamp_min(0.02), (self._y - middle) / half_height.clamp_min(0.02)
        return across.square() + along.square() < 1

    def dress(self, images: Tensor) -> Tensor:
        """The garments, resized and moved: float32 (b, 1, h, w)."""
        theta = torch.zeros(len(images), 2, 3, device=self._device)
        theta[:, 0, 0] = 1 / (self.size * self.widening).flatten()
        theta[:, 1, 1] = 1 / self.size.flatten()
        theta[:, 1, 2] = -((self.top + self.bottom - 1) / self.size).flatten()
        return _transformed(images, theta)

    def head_arms_and_legs(self, arms: float) -> Tensor:
        """The visible body around an upper garment: float32 (b, h, w)."""
        half_height = self.top * self._draw(0.4, 0.6)
        half_width = half_height * self._draw(0.55, 0.85)
        head = self._oval(self.top - half_height * self._draw(0.6, 1.0), half_width, half_height)
        neck = (self._side < half_width / 2) & (self._y < self.top + 0.06) & (self._y > self.top - half_height)
        hair = self._oval(self.top - 1.2 * half_height, 1.15 * half_width, 0.8 * half_height)
        apart = self._draw(0, 0.05) * (self._draw(0, 1) < 0.5)
        legs = (self._side < self.size * self._draw(0.16, 0.3)) & (self._side > apart) & (self._y > self.bottom - 0.08)
        shoulder = self.top + 0.1 * self.size
        arm = self.half_width * self._draw(0.72, 0.92) + 0.3 * self._draw(-0.1, 0.25) * (self._y - shoulder)
        is_arm = ((self._side - arm).abs() < self.size * self._draw(0.035, 0.065)) & (self._y > shoulder)
        is_arm &= (self._y < self.top + self.size * self._draw(0.6, 1.05)) & (self._draw(0, 1) < arms)
        skin = self._cloth()
        seen = torch.where(legs, self._cloth(), 0.0)
        seen = torch.where(neck | head | is_arm, skin, seen)
        return torch.where(hair & (self._y < self.top - half_height), self._cloth(), seen)

    def body_and_shoes(self) -> Tensor:
        """The visible body around a lower garment: float32 (b, h, w)."""
        half_width = self.size * self._draw(0.2, 0.38)
        body = (self._side < half_width) & (self._y < self.top + 0.06)
        arms = (self._side > 1.05 * half_width) & (self._side < 1.35 * half_width)
        arms = arms & (self._y < self.top + self.size * self._draw(0.1, 0.4))
        shoes = (self._side > 0.03) & (self._side < 0.3 * self.size) & (self._y > self.bottom - 0.03)
        seen = torch.where(arms, self._cloth(), 0.0)
        seen = torch.where(body, self._cloth(), seen)
        return torch.where(shoes, self._cloth(), seen)


class SeenFromAbove(nn.Module):
    """Stretch objects that are wider than high, such as shoes, vertically, as if they were seen from above.

    Args:
        p: probability of changing an image, in [0, 1].
        most: the largest factor, at least 1; the image's height limits it, too.
    """

    def __init__(self, p: float = 0.7, most: float = 2.0) -> None:
        super().__init__()
        self.p, self.most = p, most

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 (b, 1, h, w) in [0, 1] with background 0; returns the same shape and dtype."""
        n, device = len(images), images.device
        rows_used = (images[:, 0].amax(2) > _FOREGROUND).sum(1).clamp_min(1)
        room = (images.shape[2] / rows_used).clamp(1, self.most)
        stretch = 1 + (room - 1) * torch.rand(n, device=device) * (torch.rand(n, device=device) < self.p)
        theta = torch.zeros(n, 2, 3, device=device)
        theta[:, 0, 0], theta[:, 1, 1] = 1, 1 / stretch
        return _transformed(images, theta)


def _transformed(images: Tensor, theta: Tensor) -> Tensor:
    """Each image (b, c, h, w) under its affine map (b, 2, 3) from target to source, both from -1 to 1."""
    return F.grid_sample(images, F.affine_grid(theta, list(images.shape), align_corners=False), align_corners=False)


def refuse_batchwise(augmentations: Iterable[object], images: Tensor) -> None:
    """Refuse random transforms of torchvision, also within containers: they apply one random change to a whole batch.

    Deterministic ones, such as Normalize, are accepted; so is noise, which differs from pixel to pixel.

    Args:
        augmentations: modules, or containers of such.
        images: float32 (b, c, h, w); the first is used for the check.

    Raises:
        UserError: one of them changes all images of a batch in the same random way.
    """
    batch = images[:1].cpu().repeat(8, 1, 1, 1)
    for transform in _single(augmentations):
        is_torchvisions = any(cls.__module__.startswith("torchvision.transforms") for cls in type(transform).__mro__)
        if is_torchvisions and any(_is_random_per_batch(transform, batch, seed) for seed in range(5)):
            raise UserError(
                f"data.augment: torchvision's {type(transform).__name__} applies the same random change to all images of "
                "a batch; use the transform of kornia.augmentation, which is random for each image"
            )


def _single(augmentations: Iterable[object]) -> Iterator[Any]:
    for augmentation in augmentations:
        if isinstance(augmentation, nn.Sequential | nn.ModuleList | list | tuple):
            yield from _single(augmentation)
        else:
            yield augmentation


def _is_random_per_batch(transform: Any, batch: Tensor, seed: int) -> bool:
    """Whether the transform uses random numbers and changes all images of a batch of equal images in the same way."""
    python_state = random.getstate()  # torchvision draws from both
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        before = torch.get_rng_state(), random.getstate()
        try:
            changed = transform(batch)
        except Exception:  # one that cannot take these images at all is reported when a batch is tried
            return False
        finally:
            drew = not torch.equal(before[0], torch.get_rng_state()) or before[1] != random.getstate()
            random.setstate(python_state)
    return drew and bool((changed == changed[:1]).all())
