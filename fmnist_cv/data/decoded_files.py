"""The pixels of many image files, or of other pictures, decoded once into the cache and from then on mapped from there."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import __version__, features
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from fmnist_cv.data.cache import (
    DIGESTS,
    FACTS,
    FORMAT,
    PIXELS,
    alone,
    cache_folder,
    cannot_write,
    new_entry,
    read_facts,
    way_out,
)
from fmnist_cv.data.decoding import Decoding, decoded, of_one_size
from fmnist_cv.data.images import pixel_digest
from fmnist_cv.data.photos import MAX_PIXELS, UnreadableImage, pixel_limit
from fmnist_cv.errors import CannotWrite, UserError
from fmnist_cv.runtime import cpu_cores
from fmnist_cv.utils.user_text import make_console, print_line

_TOLD_FROM = 2**26  # bytes; smaller sets are decoded in seconds

# The libraries that decide what pixels are made of a file, down to the last bit. They are part of the key, so that the cache never
# gives others than decoding does now: `predict` decodes photos with the same libraries, and where pixels did change, a run that is
# resumed says so by its fingerprint. A new Pillow costs one decoding.
DECODERS = (__version__, *(features.version(name) for name in ("jpg", "libjpeg_turbo", "webp", "avif", "libtiff")))


class ImageFile(NamedTuple):
    """A file to decode.

    Attributes:
        name: its stable name, e.g. relative to the data set's folder.
        path: where it is.
        size, mtime_ns: in bytes, and when it was changed last; -1 for a file that is missing.
    """

    name: str
    path: str
    size: int
    mtime_ns: int

    @classmethod
    def found(cls, name: str, path: str) -> ImageFile:
        """The file in its present state."""
        try:
            state = os.stat(path)
        except OSError:  # decoding it will say why
            return cls(name, path, -1, -1)
        return cls(name, path, state.st_size, state.st_mtime_ns)

    def changed(self) -> int | None:
        """When the file or anything about it, such as who may read it, was changed last, in ns; None for a missing file."""
        try:
            return os.stat(self.path).st_ctime_ns
        except OSError:
            return None


@dataclass(frozen=True)
class Decoded:
    """What the cache has of a list of pictures.

    Attributes:
        pixels: uint8 (n, channels, height, width), mapped from a file: those that could be decoded, in order.
        digests: uint8 (n, 16), of each picture's pixels, or None where they are not worked out.
        digest: of all pixels.
        broken: the reason for each picture that could not be decoded, by its place in the list.
        record: the file that has them all; None where nothing is stored.
    """

    pixels: np.ndarray
    digests: np.ndarray | None
    digest: str
    broken: dict[int, str]
    record: Path | None = None

    @property
    def known_digests(self) -> Tensor | None:
        """The digests as a tensor."""
        return None if self.digests is None else torch.from_numpy(self.digests)

    @property
    def tensor(self) -> Tensor:
        """The pixels as a tensor, without a copy."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that some must not be written to; nothing does
            return torch.from_numpy(self.pixels)


def decoded_files(files: Sequence[ImageFile], source: str, decoding: Decoding) -> Decoded:
    """The files' pixels from the cache, see `decoded_once`.

    Args:
        files: in the order in which they are stored.
        source: the data set's folder or file, which tells equal names in two places apart.
        decoding: how they are decoded.
    """
    states = [(file.name, file.size, file.mtime_ns) for file in files]
    names = [file.name for file in files]
    return decoded_once(
        names, lambda place: decoding(files[place].path), source, decoding, states, lambda place: files[place].changed()
    )


def decoded_once(
    names: Sequence[str],
    decode: Callable[[int], np.ndarray],
    source: str,
    decoding: Decoding,
    state: object,
    changed: Callable[[int], object] = lambda place: None,
    threads: int | None = None,
) -> Decoded:
    """Pictures' pixels from the cache; they are decoded if they are not in it.

    Several processes may call it at once: one decodes, and the others wait for it.

    Args:
        names: what the pictures are called in messages, in the order in which they are stored.
        decode: makes uint8 (channels, height, width) of the picture at a place in the list; raises UnreadableImage where
            that cannot be done.
        source: what the pictures are called together.
        decoding: the settings of which the pixels depend and which are listed.
        state: everything else that the pixels depend on, as numbers and strings in tuples and lists.
        changed: a number that is another when the picture at a place has changed; one that is broken is decoded again then,
            and always where it is None.
        threads: how many pictures are decoded at a time; by default as many as there are cores.

    Raises:
        CannotWrite: the disk is full, or the cache cannot be written; nothing is left behind.
        UserError: no picture can be decoded, or they have different sizes and none is set.
    """
    settings = {"image_size": decoding.size, "resize": decoding.resize, "channels": decoding.channels}
    key = hashlib.blake2b(
        repr((FORMAT, DECODERS, source, settings, state)).encode("utf-8", "surrogatepass"), digest_size=16
    )
    entry = cache_folder() / key.hexdigest()
    if (found := _opened(entry, decode, changed)) is not None:
        return found
    facts: dict[str, Any] = {"format": FORMAT, "source": source, "settings": settings}
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with alone(entry, source):
            found = _opened(entry, decode, changed)  # another process may have made it meanwhile
            if found is None:
                with new_entry(entry, facts) as (pixels, digests):
                    broken = _decode(pixels, digests, names, decode, threads or cpu_cores(), facts)
                    facts["broken"] = {
                        place: (str(error), changed(place) if error.lasting else None)
                        for place, error in broken.items()
                    }
                found = _opened(entry, decode, changed)
    except OSError as error:
        raise cannot_write(error, entry.parent, math.prod(facts.get("shape", [0]))) from None
    if found is None:
        raise UserError(f"{source} changed while it was decoded; start again when it does not change any more")
    return found


def _opened(entry: Path, decode: Callable[[int], np.ndarray], changed: Callable[[int], object]) -> Decoded | None:
    """An entry's images; None where there is none, or where a picture that was broken can be decoded now."""
    facts = read_facts(entry)
    if facts is None:
        return None
    broken = {int(place): reason for place, (reason, _) in facts["broken"].items()}
    with pixel_limit(MAX_PIXELS):
        for place, (_, then) in zip(broken, facts["broken"].values(), strict=True):
            if then is None or changed(place) != then:
                with suppress(UnreadableImage):
                    decode(place)
                    return None
    with suppress(OSError):
        os.utime(entry / FACTS)  # the time of the last use
    try:
        return Decoded(*_mapped(entry, tuple(facts["shape"])), facts["digest"], broken, entry / FACTS)
    except FileNotFoundError:  # the cache was cleared meanwhile
        return None


def _mapped(entry: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """An entry's pixels, mapped, and their digests."""
    path = entry / PIXELS
    try:
        # Copy on write: what a user's code changes in place stays in its process, and a page is shared until then.
        pixels = np.memmap(path, np.uint8, "c", shape=shape)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        pixels = np.memmap(path, np.uint8, "r", shape=shape)  # a private mapping counts as memory, and it is larger
    return pixels, np.fromfile(entry / DIGESTS, np.uint8).reshape(-1, 16)


def _decode(
    pixels: BinaryIO,
    digests: BinaryIO,
    names: Sequence[str],
    decode: Callable[[int], np.ndarray],
    threads: int,
    facts: dict[str, Any],
) -> dict[int, UnreadableImage]:
    """Write all images one after the other, and note their shape and digest; returns those that are broken, by place.

    The shape is noted with the first image, as if none were broken: it tells how much space is needed.
    """
    n, source = 0, facts["source"]
    broken: dict[int, UnreadableImage] = {}
    whole = hashlib.blake2b(digest_size=16)
    console = make_console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        pixel_limit(MAX_PIXELS),
        decoded(len(names), decode, threads) as results,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        tracked = progress.track(results, len(names), description="decoding")
        for image in of_one_size(tracked, names, source, broken):
            if not n:
                facts["shape"] = [len(names), *image.shape]
                _tell_size(facts["shape"], source, console)
            content = image.tobytes()
            digest = pixel_digest(content)
            whole.update(digest)
            pixels.write(content)
            digests.write(digest)
            n += 1
    facts["shape"][0], facts["digest"] = n, whole.hexdigest()
    return broken


def _tell_size(shape: Sequence[int], source: str, console: Console) -> None:
    """Say what is about to be written, or refuse it where there is no space for it."""
    folder, needed = cache_folder(), math.prod(shape)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise CannotWrite(
            f"the decoded images of {source} take {needed / 1e9:.3g} GB, and {folder} has {free / 1e9:.3g} GB left; "
            f"{way_out()}"
        )
    if needed >= _TOLD_FROM:
        n, channels, height, width = shape
        size = f"{height}x{width} pixels, {'grey' if channels == 1 else 'RGB'}"
        print_line(console, f"decoding {n:,} images of {source} once ({size}): {needed / 1e9:.3g} GB in {folder}")
