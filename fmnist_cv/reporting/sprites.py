"""Sprite sheets: many thumbnails in few pictures that are embedded in the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fmnist_cv.data import Images

SIDE = 32  # px of a thumbnail's longer side at most
_PART = 256  # images that are scaled down at a time
COLUMNS = ROWS = 32  # thumbnails in a sheet: 1024 px, far below WebP's limit of 16383

# Measured on Fashion-MNIST, bytes per image: PNG 452, WebP lossless 443; at quality 95, 333; 90, 285; 75, 197; 50, 164. WebP's
# slowest lossless method saves another 3 % in 25 times the time.
QUALITIES = (None, 95, 90, 75, 50)


@dataclass(frozen=True)
class Sheets:
    """Sprite sheets of COLUMNS x ROWS thumbnails each, row by row.

    Attributes:
        sheets: each as base64 of a WebP picture.
        quality: WebP's; None is lossless.
    """

    sheets: list[str]
    quality: int | None

    @property
    def size(self) -> int:
        """Size in the page, bytes."""
        return sum(map(len, self.sheets))


def thumbnails(images: Tensor) -> Tensor:
    """Stored pixels (n, c, h', w'): unchanged where no side exceeds SIDE, else scaled down by area averaging."""
    height, width = images.shape[2:]
    scale = SIDE / max(height, width)
    if scale >= 1 or not len(images):
        return images
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = images.new_empty((len(images), images.shape[1], *size))
    for i in range(0, len(images), _PART):  # in parts, since all images as floats may not fit into memory
        pooled = F.adaptive_avg_pool2d(images[i : i + _PART].float(), size)
        small[i : i + _PART] = pooled if small.is_floating_point() else pooled.round().to(small.dtype)
    return small


def thumbnails_of(images: Images, indices: Tensor | None = None) -> Tensor:
    """`thumbnails` of images, by default of all, which are read in parts: never all of them in their full size."""
    indices = torch.arange(len(images)) if indices is None else indices
    return torch.cat([thumbnails(images.pixels(part).cpu()) for part in torch.split(indices, _PART)])


def pack(images: Tensor, quality: int | None) -> Sheets:
    """Sprite sheets of thumbnails uint8 (n, 1 or 3, h, w)."""
    per_sheet = COLUMNS * ROWS
    parts = [images[i : i + per_sheet].cpu().numpy() for i in range(0, len(images), per_sheet)]
    return Sheets([_encode(_sheet(part), quality) for part in parts], quality)


def pack_within(images: Tensor, limit: int) -> Sheets:
    """The sheets of the highest quality within `limit` bytes, or of the lowest quality where none fits."""
    for quality in QUALITIES:
        sheets = pack(images, quality)
        if sheets.size <= limit:
            break
    return sheets


def _sheet(images: np.ndarray) -> np.ndarray:
    """uint8 (rows * h, columns * w[, 3])."""
    n, channels, height, width = images.shape
    rows = -(-n // COLUMNS)
    padded = np.zeros((rows * COLUMNS, channels, height, width), dtype=np.uint8)
    padded[:n] = images
    grid = padded.reshape(rows, COLUMNS, channels, height, width).transpose(0, 3, 1, 4, 2)
    sheet = grid.reshape(rows * height, COLUMNS * width, channels)
    return sheet[..., 0] if channels == 1 else sheet


def _encode(sheet: np.ndarray, quality: int | None) -> str:
    file = io.BytesIO()
    options = {"lossless": True} if quality is None else {"quality": quality}
    Image.fromarray(sheet).save(file, "webp", method=4, **options)
    return base64.b64encode(file.getvalue()).decode()
