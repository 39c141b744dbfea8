"""Image files to uint8 pixels of one size: one file, or many pictures by several threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from fmnist_cv.data.photos import UnreadableImage, read_photo
from fmnist_cv.errors import UserError

Resize = Literal["squeeze", "crop", "pad"]

_AT_ONCE = 32  # pictures per task of a thread
_BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Decoding:
    """How image files become pixels; calling it decodes one file.

    A photo is turned as its EXIF data say; transparent parts become white; of 16 bits the upper 8 are kept; palettes and
    CMYK become RGB; of an animation the first image counts.

    Attributes:
        size: (height, width), or None for the size that each file has.
        resize: "squeeze" ignores the sides' ratio; "crop" keeps it and cuts off what is left over on both sides; "pad"
            keeps it and adds black borders.
        channels: 3 for RGB, 1 for grey.
        plain: read files as the loader of torchvision's data sets does, see `photos.upright_rgb`.
    """

    size: tuple[int, int] | None = None
    resize: Resize = "squeeze"
    channels: int = 3
    plain: bool = False

    @classmethod
    def checked(cls, image_size: int | Sequence[int] | None, resize: str, channels: int) -> Decoding:
        """The same from a user's settings: one number is the length of both sides.

        Raises:
            UserError: one of them is out of range.
        """
        sides = [image_size, image_size] if isinstance(image_size, int) else image_size
        if sides is not None and (len(sides) != 2 or min(sides) < 1):
            raise UserError(
                f"data.image_size is {image_size}; give one number, or [height, width], of at least 1 pixel"
            )
        if resize not in get_args(Resize):
            raise UserError(f"data.resize is '{resize}'; it is one of {', '.join(get_args(Resize))}")
        if channels not in (1, 3):
            raise UserError(f"data.channels is {channels}; give 3 for colours, or 1 for grey")
        return cls(None if sides is None else (sides[0], sides[1]), resize, channels)  # type: ignore[arg-type]

    def __call__(self, path: str | Path) -> np.ndarray:
        """Decode one file.

        Returns:
            uint8 (channels, height, width).

        Raises:
            UnreadableImage: it holds no image that can be decoded; the message names it and the reason.
        """
        return self.of_rgb(read_photo(Path(path), self.smallest, self.plain))

    @property
    def smallest(self) -> int | None:
        """The length that the sides of a photo must keep where it is decoded smaller; None where its size is kept.

        Twice the size: what a JPEG loses when it is decoded smaller does not survive the resizing either.
        """
        return None if self.size is None else 2 * max(self.size)

    def of_rgb(self, photo: Image.Image) -> np.ndarray:
        """The pixels uint8 (channels, height, width) of a photo that is upright and RGB."""
        if self.size is not None:
            photo = resized(photo, self.size, self.resize)
        if self.channels == 1:
            return np.asarray(photo.convert("L"))[None]
        return np.ascontiguousarray(np.asarray(photo).transpose(2, 0, 1))


def resized(photo: Image.Image, size: tuple[int, int], how: Resize) -> Image.Image:
    """A photo at this size (height, width), see `Decoding`; averaged over the pixels that fall together."""
    height, width = size
    if photo.size == (width, height):
        return photo
    if how == "squeeze":
        return photo.resize((width, height), _BILINEAR)
    if how == "crop":
        return ImageOps.fit(photo, (width, height), _BILINEAR)
    scale = min(width / photo.width, height / photo.height)
    inner = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    padded = Image.new(photo.mode, (width, height))
    padded.paste(photo.resize(inner, _BILINEAR), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return padded


Result = np.ndarray | UnreadableImage


@contextmanager
def decoded(n: int, decode: Callable[[int], np.ndarray], threads: int) -> Iterator[Iterator[Result]]:
    """Decode pictures in several threads: within the context, an iterator over their pixels, in order.

    Threads, since Pillow decodes and resizes without holding Python's lock, and since processes would import the user's
    script again.

    Args:
        n: how many there are.
        decode: decodes one, by its place.
        threads: how many are decoded at a time.
    """

    def some(start: int) -> list[Result]:
        return [_try(decode, place) for place in range(start, min(start + _AT_ONCE, n))]

    def results() -> Iterator[Result]:
        waiting: deque[Future[list[Result]]] = deque()
        for start in range(0, n, _AT_ONCE):
            waiting.append(pool.submit(some, start))
            if len(waiting) > 2 * threads:  # not all at once: decoded images wait in memory
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()

    pool = ThreadPoolExecutor(threads, "decoding")
    try:
        yield results()
    finally:
        pool.shutdown(cancel_futures=True)


def _try(decode: Callable[[int], np.ndarray], place: int) -> Result:
    try:
        return decode(place)
    except UnreadableImage as error:
        return error


def of_one_size(
    results: Iterable[Result], names: Sequence[str], source: str, broken: dict[int, UnreadableImage]
) -> Iterator[np.ndarray]:
    """The pictures that could be decoded; the errors of the others go to `broken`, by their places.

    Args:
        results: of all pictures, in order.
        names: what the pictures are called in messages.
        source: what they are called together.
        broken: is filled.

    Raises:
        UserError: no picture could be decoded, or they have different sizes.
    """
    shape: tuple[int, ...] | None = None
    first = ""
    for place, result in enumerate(results):
        if isinstance(result, UnreadableImage):
            broken[place] = result
            continue
        if shape is None:
            shape, first = result.shape, names[place]
        elif result.shape != shape:
            raise UserError(
                f"the images of {source} have different sizes: {first} is {shape[1]} pixels high and {shape[2]} wide, "
                f"{names[place]} {result.shape[1]} and {result.shape[2]}; set data.image_size, such as 96"
            )
        yield result
    if shape is None:
        raise UserError(f"none of the {len(names):,} images of {source} can be decoded: {next(iter(broken.values()))}")
