"""Photos of clothes, brought to 28x28 grey pixels: as the account did it, or as Fashion-MNIST was made."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from fmnist_cv.errors import UserError

SIZE = 28
# Pillow tells formats by content, and hands some (EPS) to other programs: only these are opened, whatever a file's name.
Image.init()
FORMATS = tuple(name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF") if name in Image.OPEN)
FUZZ = 0.05  # of the pixels' range: what differs less from the corners is background
Preprocessing = Literal["fashion-mnist", "as-published"]


class UnreadableImage(UserError):
    """A file that holds no image that can be decoded."""


def read_photo(path: Path) -> Image.Image:
    """Decode an image file to RGB, turned as its camera says, transparent parts white.

    Raises:
        UnreadableImage: it is missing, empty, truncated, or something else.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I;16"):  # Pillow would cut off what is above 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if image.mode in ("I", "F"):
                raise UnreadableImage(f"{path} has pixels of 32 bits, of which range is not told; save it with 8 or 16")
            if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert("RGB")
    except UnidentifiedImageError:
        raise UnreadableImage(f"{path} is no image, or of another format than {', '.join(FORMATS)}") from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImage(f"cannot read the image {path}: {reason}") from None


def preprocess(photo: Image.Image, how: Preprocessing = "fashion-mnist") -> np.ndarray:
    """A photo of a garment before a plain background as a network trained on Fashion-MNIST expects it.

    Args:
        photo: RGB, of any size.
        how: "fashion-mnist", after Xiao, Rasul and Vollgraf ("Fashion-MNIST", 2017, section 2): trim what is like the
            corners, bring the longest side to 28 pixels, sharpen, centre, negate, to grey. "as-published", after
            Sharifi, Hannesdottir and Dan (section 4.4): negate, to grey, squeeze to 28x28.

    Returns:
        uint8 (28, 28), the garment light on black.
    """
    if how not in get_args(Preprocessing):
        raise UserError(f"preprocessing is '{how}'; it is one of {', '.join(get_args(Preprocessing))}")
    if how == "as-published":
        return np.asarray(ImageOps.invert(photo).convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    garment = trim(photo)
    scale = SIZE / max(garment.size)
    width, height = (max(1, round(side * scale)) for side in garment.size)
    # an average over the pixels that fall together; leaving them out, as the data set's makers did, suits large photos
    garment = garment.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    garment = garment.filter(ImageFilter.UnsharpMask(radius=1.0, percent=100, threshold=0))
    canvas = np.zeros((SIZE, SIZE), dtype=np.uint8)
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    canvas[top : top + height, left : left + width] = 255 - np.asarray(garment.convert("L"))
    return canvas


def trim(photo: Image.Image) -> Image.Image:
    """Cut off the edges that look like the corners; of a photo that is all of one colour nothing."""
    pixels = np.asarray(photo, dtype=np.int16)
    background = np.median(pixels[[0, 0, -1, -1], [0, -1, 0, -1]], axis=0)
    garment = (np.abs(pixels - background) > 255 * FUZZ).any(axis=2)
    rows, columns = np.flatnonzero(garment.any(axis=1)), np.flatnonzero(garment.any(axis=0))
    if not len(rows):
        return photo
    return photo.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
