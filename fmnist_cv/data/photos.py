"""Photos of clothes, decoded and brought to 28x28 grey pixels as Fashion-MNIST was made."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFilter, ImageOps, UnidentifiedImageError

from fmnist_cv.errors import UserError
from fmnist_cv.utils.files import regular_file

SIZE = 28
# Pillow detects formats by content and passes some (EPS) to other programs: only these are opened, whatever the name.
Image.init()
FORMATS = tuple(name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF") if name in Image.OPEN)
ENDINGS = frozenset(ending for ending, name in Image.registered_extensions().items() if name in FORMATS)
# of image files that are not opened: other formats of Pillow's, those of phones and cameras, and drawings
OTHER_ENDINGS = (
    frozenset(
        ending
        for ending, name in Image.registered_extensions().items()
        if Image.MIME.get(name, "").startswith("image/") and name not in FORMATS
    )
    | {
        ".heic",
        ".heif",
        ".avif",
        ".webp",
        ".jxl",
        ".svg",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".orf",
        ".raf",
        ".rw2",
    }
    - ENDINGS
)
MAX_PIXELS = 100_000_000  # of one image; with 16 bytes each, 1.6 GB
FUZZ = 0.05  # of the pixels' range: what differs less from the corners is background


class UnreadableImage(UserError):
    """A file that holds no image that can be decoded.

    Attributes:
        lasting: it is so as long as the file stays as it is; false where the system does not give it, or has no memory left.
    """

    def __init__(self, message: str, lasting: bool = True) -> None:
        super().__init__(message)
        self.lasting = lasting


@contextmanager
def pixel_limit(max_pixels: int) -> Iterator[None]:
    """Within it, `read_photo` refuses images of more pixels than this, instead of Pillow's own limit.

    Pillow's limit is global, and images of up to twice its size only cause a warning.
    """
    pillows, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = pillows


def read_photo(path: Path, smallest: int | None = None, plain: bool = False) -> Image.Image:
    """Decode an image file to RGB, rotated as its EXIF data say, with transparent parts in white.

    Of several images in a file (GIF, TIFF) it is the first. Of 16 bits per pixel the upper 8 are kept. Memory: up to 16
    bytes per pixel.

    Args:
        path: the file.
        smallest: a JPEG whose sides both stay at least this long may be decoded at a half, a quarter or an eighth of its
            size, which is several times faster.
        plain: see `upright_rgb`.

    Raises:
        UnreadableImage: it is missing, empty, truncated, too large (see `pixel_limit`), or no image.
    """
    try:
        with Image.open(regular_file(path), formats=FORMATS) as image:
            return upright_rgb(image, smallest, plain)
    except UnidentifiedImageError:
        if _is_web_page(path):
            raise UnreadableImage(f"{path} is a web page, not an image; its download failed, get it again") from None
        if path.suffix.lower() in OTHER_ENDINGS:
            raise UnreadableImage(f"{path} is of a format that is not supported; convert it to JPEG or PNG") from None
        raise UnreadableImage(f"{path} is not an image, or of another format than {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError as error:
        found = re.search(r"(\d+) pixels", str(error))
        raise UnreadableImage(
            f"{path} has {int(found[1]) if found else 0:,} pixels, more than the limit of {Image.MAX_IMAGE_PIXELS:,}; "
            "make it smaller, or, where predict reads it, raise --max_pixels, if there is memory for 16 bytes per pixel"
        ) from None
    except UserError as error:
        raise UnreadableImage(str(error), lasting=False) from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        of_the_system = isinstance(error, MemoryError) or getattr(error, "errno", None) is not None
        raise UnreadableImage(f"cannot read the image {path}: {reason}", lasting=not of_the_system) from None


def upright_rgb(image: Image.Image, smallest: int | None = None, plain: bool = False) -> Image.Image:
    """An opened image as RGB, rotated as its EXIF data say, with transparent parts in white; see `read_photo`.

    Args:
        image: the image.
        smallest: the length that the sides of a JPEG keep where it is decoded smaller.
        plain: convert it to RGB before all else and at its full size, as the loader of torchvision's data sets does, which
            ignores transparency.

    Raises:
        Image.DecompressionBombError: it is too large, see `pixel_limit`.
        OSError, ValueError, SyntaxError: it cannot be decoded.
    """
    n_pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
    if limit is not None and n_pixels > limit:
        raise Image.DecompressionBombError(f"{n_pixels} pixels")
    if plain:
        image = image.convert("RGB")
    elif smallest is not None:
        image.draft(None, (smallest, smallest))
    image.load()
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # without a copy of all others
        image = ImageOps.exif_transpose(image)
    return as_rgb(image)


def _is_web_page(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(200).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head"))


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any of Pillow's modes as RGB: 16 bits to 8, transparent parts in white.

    Raises:
        ValueError: it has 32 bits per pixel.
    """
    if image.mode.startswith("I;16"):  # Pillow would cut off what is above 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("it has pixels of 32 bits, whose range is unknown; save it with 8 or 16 bits")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")  # which copies it in any case


def preprocess(photo: Image.Image) -> np.ndarray:
    """A photo of a garment on a plain background as a network trained on Fashion-MNIST expects it.

    After Xiao, Rasul and Vollgraf ("Fashion-MNIST", 2017, section 2): trim edges of the corners' colour, resize the
    longest side to 28 pixels, sharpen, centre, negate, convert to grey.

    Args:
        photo: RGB, of any size.

    Returns:
        uint8 (28, 28), the garment light on black.
    """
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
    """Crop edges that have the colour of the corners; a photo of a single colour stays as it is."""
    right, bottom = photo.width - 1, photo.height - 1
    corners = np.array([photo.getpixel(place) for place in ((0, 0), (0, bottom), (right, 0), (right, bottom))])
    background = np.median(corners, axis=0)
    # per channel, whether each value differs; applied by Pillow, which needs no array of the photo's size
    differs = np.abs(np.arange(256) - background[:, None]) > 255 * FUZZ
    return photo.crop(photo.point((255 * differs).ravel().tolist()).getbbox())
