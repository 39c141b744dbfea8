"""The kinds of stored pixels: whole numbers of 8 or 16 bits, and floats."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fmnist_cv.errors import UserError

# what the scaling "unit" divides by; floats have no range of their own and stay as they are
UNIT: dict[torch.dtype, float] = {torch.uint8: 255.0, torch.uint16: 65535.0, torch.float32: 1.0}

KINDS = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}  # by the names that files use


def as_stored(images: np.ndarray) -> np.ndarray:
    """The same pixels as uint8, uint16 or, from any floats, float32.

    Raises:
        UserError: another dtype, or floats that are not finite.
    """
    native = images.dtype.newbyteorder("=")  # torch takes no other order of bytes
    if native in (np.uint8, np.uint16):
        return images.astype(native, copy=False)
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(
            f"images must be uint8, uint16 or floats, got {images.dtype}; convert them, e.g. with "
            "images.astype('uint8') where the values are 0 to 255"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        stored = images.astype(np.float32, copy=False)
    finite = np.array([bool(np.isfinite(image).all()) for image in stored], dtype=bool)
    if not finite.all():
        raise UserError(
            f"{(~finite).sum()} of {len(finite)} images have pixels that are NaN, infinite or too large for float32, the first "
            f"at index {(~finite).argmax()}; replace these values, or leave out the images"
        )
    return stored


def noise(n: int, shape: tuple[int, int, int], dtype: torch.dtype, seed: int) -> Tensor:
    """Random pixels (n, channels, height, width) over the whole range of a kind, floats in 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.rand((n, *shape), generator=generator, dtype=dtype)
    return torch.randint(int(UNIT[dtype]) + 1, (n, *shape), generator=generator, dtype=torch.int32).to(dtype)


def name_of(dtype: torch.dtype) -> str:
    """The name under which files record a kind, e.g. "uint8"."""
    return str(dtype).removeprefix("torch.")


def as_pictures(images: Tensor) -> Tensor:
    """Pixels as they are shown: uint8 (n, 1 or 3, height, width).

    Of 16 bits the upper 8 are shown; floats from the smallest (black) to the largest of all given images (white), without
    a change where they are all in 0 to 1. Of two channels the first is shown, of more than three the first three.

    Args:
        images: stored pixels (n, channels, height, width).
    """
    channels = images.shape[1]
    images = images[:, :1] if channels == 2 else images[:, :3]
    if images.dtype == torch.uint8:
        return images
    if images.dtype == torch.uint16:
        return (images.to(torch.int32) >> 8).to(torch.uint8)
    if not images.numel():
        return images.to(torch.uint8)
    low, high = min(0.0, float(images.min())), max(1.0, float(images.max()))
    return ((images - low) * (255 / (high - low))).round().to(torch.uint8)
