"""The two ways in which product photos are brought to 28x28 grey pixels."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from fmnist_cv.data import photos
from fmnist_cv.errors import UserError

Preprocessing = Literal["fashion-mnist", "as-published"]


def preprocess(photo: Image.Image, how: Preprocessing) -> np.ndarray:
    """A photo of a garment on a plain background as a network trained on Fashion-MNIST expects it.

    Args:
        photo: RGB, of any size.
        how: "fashion-mnist", see `fmnist_cv.data.photos.preprocess`; "as-published", see `as_published`.

    Returns:
        uint8 (28, 28), the garment light on black.

    Raises:
        UserError: `how` is neither.
    """
    if how not in get_args(Preprocessing):
        raise UserError(f"preprocessing is '{how}'; it is one of {', '.join(get_args(Preprocessing))}")
    return as_published(photo) if how == "as-published" else photos.preprocess(photo)


def as_published(photo: Image.Image) -> np.ndarray:
    """Negate, convert to grey, and resize to 28x28 whatever the aspect ratio: Sharifi, Hannesdottir and Dan, section 4.4.

    Args:
        photo: RGB, of any size.

    Returns:
        uint8 (28, 28).
    """
    return np.asarray(ImageOps.invert(photo).convert("L").resize((photos.SIZE, photos.SIZE), Image.Resampling.BILINEAR))
