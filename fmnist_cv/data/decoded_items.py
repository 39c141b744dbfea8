"""Items of other libraries' data sets, a picture and a label each, decoded once into stored images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from fmnist_cv.data.images import Images
from fmnist_cv.data.photos import UnreadableImage, as_rgb, read_photo
from fmnist_cv.errors import UserError

ResizeName = Literal["squeeze", "crop", "pad"]

_GREY = {"1", "L", "I;16", "I;16B", "I;16L"}  # Pillow's modes of one channel of a known range


@dataclass(frozen=True)
class PictureFormat:
    """How pictures become stored pixels.

    Attributes:
        image_size: height and width of all, or one number for both; None where all pictures have one size.
        resize: "squeeze" changes the proportions, "crop" cuts off what is too long, "pad" adds black borders.
        channels: 1 (grey) or 3 (RGB); None for those of the first picture.
    """

    image_size: int | Sequence[int] | None = None
    resize: ResizeName = "squeeze"
    channels: int | None = None

    def __post_init__(self) -> None:
        size = self.image_size
        sides = [] if size is None else [size, size] if isinstance(size, int) else [*size]
        if size is not None and (len(sides) != 2 or min(sides) < 1):
            raise UserError(f"data.image_size is {size}; it is a number of pixels, or [height, width], at least 1 each")
        if self.resize not in get_args(ResizeName):
            raise UserError(f"data.resize is '{self.resize}'; it is one of {', '.join(get_args(ResizeName))}")
        if self.channels not in (None, 1, 3):
            raise UserError(f"data.channels is {self.channels}; it is 1 for grey or 3 for RGB images")

    def pixels(self, picture: Any) -> np.ndarray:
        """One picture, of Pillow or an array uint8 (h, w) or (h, w, c), as uint8 (h, w, channels).

        Raises:
            UserError: it is no picture, or has 32 bits per pixel.
        """
        image = picture if isinstance(picture, Image.Image) else _from_array(picture)
        try:
            image = as_rgb(ImageOps.exif_transpose(image))
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableImage(f"cannot be decoded: {error}") from None
        if self.channels == 1:
            image = image.convert("L")
        if self.image_size is not None:
            height, width = (
                (self.image_size, self.image_size) if isinstance(self.image_size, int) else tuple(self.image_size)
            )
            image = _resized(image, (width, height), self.resize)
        pixels = np.asarray(image)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def decoder(self, channels: int) -> Callable[[str | Path], np.ndarray]:
        """What makes pixels of an image file as of pictures that were stored: uint8 (channels, height, width).

        Args:
            channels: of the stored pictures.
        """
        form = replace(self, channels=channels)
        return lambda path: np.ascontiguousarray(form.pixels(read_photo(Path(path))).transpose(2, 0, 1))


def _is_grey(picture: Any) -> bool:
    if isinstance(picture, Image.Image):
        return picture.mode in _GREY
    shape = np.shape(picture)
    return len(shape) == 2 or (len(shape) == 3 and shape[-1] == 1)


def _from_array(picture: Any) -> Image.Image:
    array = np.asarray(picture)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise UserError(
            f"is {type(picture).__name__} of dtype {array.dtype} and shape {array.shape}; it must be a picture of Pillow, "
            "or uint8 (h, w) or (h, w, 3)"
        )
    return Image.fromarray(array)


def _resized(image: Image.Image, size: tuple[int, int], how: ResizeName) -> Image.Image:
    """The image at this size (width, height), averaged over the pixels that fall together."""
    if image.size == size:
        return image
    method = Image.Resampling.BILINEAR
    if how == "squeeze":
        return image.resize(size, method)
    return ImageOps.fit(image, size, method) if how == "crop" else ImageOps.pad(image, size, method)


def decode_items(
    n: int, item: Callable[[int], tuple[Any, Any]], form: PictureFormat, source: str, threads: int
) -> tuple[np.ndarray, list[Any]]:
    """Decode n items.

    Args:
        n: how many there are.
        item: returns picture and label by index.
        form: how pictures become pixels.
        source: what the data are called in messages.
        threads: how many decode at once, outside Python's lock; above 1, `item` must be safe in threads.

    Returns:
        Pixels uint8 (n, h, w, channels) and the labels, as the data set gives them.

    Raises:
        UserError: there are none, one cannot be decoded, they differ in size and no size is given, or the first are grey
            and others in colour.
    """
    if not n:
        raise UserError(f"{source}: there are no images")

    def read(index: int) -> tuple[Any, Any]:
        try:
            return item(index)
        except (OSError, SyntaxError) as error:
            raise UserError(f"{source}: cannot read image {index} (counted from 0): {error}") from None

    def to_pixels(index: int, picture: Any) -> np.ndarray:
        try:
            return form.pixels(picture)
        except UserError as error:
            raise UserError(f"{source}: image {index} (counted from 0) {error}") from None

    picture, _ = read(0)
    if form.channels is None:
        form, is_grey = replace(form, channels=1 if _is_grey(picture) else 3), _is_grey(picture)
    else:
        is_grey = False
    shape = to_pixels(0, picture).shape
    pixels = np.empty((n, *shape), dtype=np.uint8)

    def store(index: int) -> Any:
        picture, label = read(index)
        if is_grey and not _is_grey(picture):
            raise UserError(
                f"{source}: image {index} (counted from 0) is in colour, but image 0 is grey; give --data.channels 3 or 1"
            )
        one = to_pixels(index, picture)
        if one.shape != shape:
            raise UserError(
                f"{source}: image {index} (counted from 0) has {one.shape[0]}x{one.shape[1]} pixels, but image 0 "
                f"{shape[0]}x{shape[1]}; bring them to one size with --data.image_size"
            )
        pixels[index] = one
        return label

    with ThreadPoolExecutor(threads) as pool:
        futures = pool.map(store, range(n))
        try:
            return pixels, [*futures]
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise


def class_numbers(
    labels: Sequence[Any], class_names: Sequence[str] | None, source: str
) -> tuple[np.ndarray, Sequence[str] | None]:
    """Labels as a data set gives them, numbers or words, as numbers from 0, and the classes' names.

    Args:
        labels: one per image.
        class_names: the names, where they are known; with words, their order gives the numbers.
        source: what the data are called in messages.

    Returns:
        int64 (n,), and the names; None where the labels are numbers without names.

    Raises:
        UserError: labels are of several kinds or none that names one class, or a word is no known class.
    """
    plain = [label.item() if hasattr(label, "item") and np.ndim(label) == 0 else label for label in labels]
    kinds = {bool: "numbers", int: "numbers", str: "words"}
    found: dict[str, int] = {}  # each kind, and the first image with it
    for i, label in enumerate(plain):
        found.setdefault(kinds.get(type(label), type(label).__name__), i)
    if len(found) > 1:
        places = " and ".join(f"{kind} (image {i})" for kind, i in found.items())
        raise UserError(f"{source}: the labels are {places}; each must be a number, or each a word")
    if (kind := next(iter(found))) == "numbers":
        numbers = np.array(plain, dtype=np.int64)
        if (missing := np.flatnonzero(numbers < 0)).size:
            raise UserError(
                f"{source}: {len(missing)} of {len(numbers)} images have no class (label {numbers[missing[0]]} at image "
                f"{missing[0]}); a test part without labels is left out with --data.test false"
            )
        return numbers, class_names
    if kind != "words":
        raise UserError(f"{source}: the labels are of type {kind}; each must be one class, a number or a word")
    names = sorted(set(plain)) if class_names is None else [*class_names]
    number = {name: i for i, name in enumerate(names)}
    if unknown := sorted(set(plain) - number.keys()):
        raise UserError(f"{source}: the label '{unknown[0]}' is not among the training images' classes {names}")
    return np.array([number[label] for label in plain], dtype=np.int64), names


def decoded_images(
    n: int,
    item: Callable[[int], tuple[Any, Any]],
    form: PictureFormat,
    source: str,
    threads: int,
    class_names: Sequence[str] | None = None,
    groups: np.ndarray | None = None,
) -> Images:
    """Items decoded and checked, see `decode_items` and `class_numbers`."""
    pixels, labels = decode_items(n, item, form, source, threads)
    numbers, names = class_numbers(labels, class_names, source)
    try:
        return Images.from_arrays(pixels.transpose(0, 3, 1, 2), numbers, names, groups)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
