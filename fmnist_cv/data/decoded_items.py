"""Pictures of other libraries' data sets: decoded once, as image files are, with labels that are numbers or words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from fmnist_cv.data.decoded_files import Decoded, decoded_once
from fmnist_cv.data.decoding import Decoding, Resize, decoded, of_one_size
from fmnist_cv.data.duplicates import Duplicates
from fmnist_cv.data.images import Images
from fmnist_cv.data.module import KFoldDataModule
from fmnist_cv.data.photos import FORMATS, MAX_PIXELS, UnreadableImage, pixel_limit, upright_rgb
from fmnist_cv.errors import UserError
from fmnist_cv.runtime import cpu_cores

_GREY = {"1", "L", "I;16", "I;16B", "I;16L"}  # Pillow's modes of one channel of a known range
_SHOWN = 3  # broken pictures in a message


class PicturesDataModule(KFoldDataModule):
    """A data module whose pictures are decoded and resized once, into the cache; see `FilesDataModule`.

    Args:
        image_size: bring all pictures to this height and width, one number or [height, width]; needed where they differ.
        resize: how: "squeeze" changes proportions, "crop" cuts off what is too long, "pad" adds black borders.
        channels: 1 (grey) or 3 (RGB); by default those of the first picture.
        duplicates: what to do about pictures that are equal in every pixel: "group" keeps them together on one side of
            every split, and refuses copies in the test set; "keep" treats them as different ones; "refuse" is an error.
        eval_batch_size: images per step without gradients; changes speed and memory only.
        kwargs: batches and splits, see KFoldDataModule.
    """

    def __init__(
        self,
        image_size: int | list[int] | None = None,
        resize: Resize = "squeeze",
        channels: int | None = None,
        duplicates: Duplicates = "group",
        eval_batch_size: int = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(duplicates=duplicates, eval_batch_size=eval_batch_size, **kwargs)
        self.channels = channels
        self.decoding = Decoding.checked(image_size, resize, 3 if channels is None else channels)

    @property
    def decode(self) -> Callable[[str | Path], np.ndarray] | None:
        """Decodes an image file as the data set's pictures are, where these are resized; see `KFoldDataModule.decode`."""
        if self.decoding.size is None:
            return None
        return replace(self.decoding, channels=(self.stored_shape or self.train_images.shape)[0])


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures, not decoded yet.

    Attributes:
        n: how many there are.
        item: returns picture and label by index; in threads, if there are several. A picture is one of Pillow, or an array uint8
            (h, w) or (h, w, 3).
        source: what the data are called in messages.
        state: all that the pixels depend on besides the settings, see `decoded_once`; None where that is not known, and they
            are decoded into memory.
        threads: how many are decoded at a time; None for as many as there are cores.
        labels: the labels, where they are known without the pictures.
    """

    n: int
    item: Callable[[int], tuple[Any, Any]]
    source: str
    state: object
    threads: int | None = None
    labels: Sequence[Any] | None = None

    def images(
        self,
        decoding: Decoding,
        channels: int | None,
        class_names: Sequence[str] | None = None,
        groups: np.ndarray | None = None,
    ) -> Images:
        """Decode the pictures, or find them in the cache.

        Args:
            decoding: how they become pixels.
            channels: 1 or 3; None for those of the first picture.
            class_names: the classes' names, where they are known.
            groups: one per picture, or None.

        Raises:
            UserError: there are none, one cannot be decoded, they differ in size and no size is given, the first are grey and
                others in colour, or a label is not that of one class.
        """
        if not self.n:
            raise UserError(f"{self.source}: there are no images")
        try:
            is_grey = channels is None and _is_grey(self.read(0)[0])  # which all others must be, too
        except UnreadableImage as error:
            raise UserError(f"{self.source}: {error}") from None
        decoding = replace(decoding, channels=1 if is_grey else channels or 3)
        labels: dict[int, Any] = {}

        def decode(index: int) -> np.ndarray:
            picture, labels[index] = self.read(index)
            if is_grey and not _is_grey(picture):
                raise UserError(
                    f"{self.source}: image {index} (counted from 0) is in colour, but image 0 is grey; give --data.channels 3 or 1"
                )
            try:
                return pixels_of(picture, decoding)
            except UnreadableImage as error:
                raise UnreadableImage(f"image {index} (counted from 0) {error}") from None

        names = [f"image {i}" for i in range(self.n)]
        if self.state is None:
            stored = self._in_memory(decode, names)
        else:
            # pixels that were made without the check for colours do not stand for those with it
            state = (self.state, "grey") if is_grey else self.state
            stored = decoded_once(names, decode, self.source, decoding, state, threads=self.threads)
        if stored.broken:
            reasons = [stored.broken[i] for i in sorted(stored.broken)]
            more = "; …" if len(reasons) > _SHOWN else ""
            raise UserError(
                f"{self.source}: {len(reasons)} of {self.n} images cannot be decoded: {'; '.join(reasons[:_SHOWN])}{more}"
            )
        found = self.labels or [labels[i] if i in labels else self.read(i)[1] for i in range(self.n)]
        numbers, known = class_numbers(found, class_names, self.source)
        try:
            checked = Images.from_arrays(np.zeros((self.n, 1, 1), dtype=np.uint8), numbers, known, groups)
        except UserError as error:
            raise UserError(f"{self.source}: {error}") from None
        return replace(checked, images=stored.tensor, stored_digest=stored.digest or None, digests=stored.known_digests)

    def _in_memory(self, decode: Callable[[int], np.ndarray], names: Sequence[str]) -> Decoded:
        """The decoded pictures, without a digest."""
        pixels, broken = np.empty((0, 0, 0, 0), dtype=np.uint8), dict[int, UnreadableImage]()
        with pixel_limit(MAX_PIXELS), decoded(self.n, decode, self.threads or cpu_cores()) as results:
            for i, image in enumerate(of_one_size(results, names, self.source, broken)):
                if not i:
                    pixels = np.empty((self.n, *image.shape), dtype=np.uint8)
                pixels[i] = image
        return Decoded(pixels, None, "", {place: str(error) for place, error in broken.items()})

    def read(self, index: int) -> tuple[Any, Any]:
        """Picture and label by index.

        Raises:
            UnreadableImage: the picture's file holds no image, or cannot be read.
        """
        try:
            return self.item(index)
        except UnidentifiedImageError:
            raise UnreadableImage(
                f"image {index} (counted from 0) is not an image, or of another format than {', '.join(FORMATS)}"
            ) from None
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise UnreadableImage(f"image {index} (counted from 0) cannot be read: {error}") from None


def pixels_of(picture: Any, decoding: Decoding) -> np.ndarray:
    """A picture of Pillow, or an array uint8 (h, w) or (h, w, c), as uint8 (channels, height, width).

    Raises:
        UnreadableImage: it is no picture, is too large or truncated, or has 32 bits per pixel.
    """
    image = picture if isinstance(picture, Image.Image) else _from_array(picture)
    try:
        image = upright_rgb(image, decoding.smallest)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"cannot be decoded: {error}") from None
    return decoding.of_rgb(image)


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
        raise UnreadableImage(
            f"is {type(picture).__name__} of dtype {array.dtype} and shape {array.shape}; it must be a picture of Pillow, "
            "or uint8 (h, w) or (h, w, 3)"
        )
    return Image.fromarray(array)


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


def first_line(error: Exception) -> str:
    """What another library's error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
