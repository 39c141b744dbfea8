"""The pixels of many image files, or of other pictures, decoded once into the cache and from then on mapped from there."""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from fmnist_cv.data.cache import (
    DIGESTS,
    FACTS,
    FORMAT,
    LOCK,
    PIXELS,
    UNFINISHED,
    cache_folder,
    cannot_write,
    read_facts,
    way_out,
)
from fmnist_cv.data.decoding import Decoding, decoded
from fmnist_cv.data.images import pixel_digest
from fmnist_cv.data.photos import MAX_PIXELS, UnreadableImage, pixel_limit
from fmnist_cv.errors import CannotWrite, UserError
from fmnist_cv.runtime import cpu_cores
from fmnist_cv.utils.user_text import make_console, print_line

_TOLD_FROM = 2**26  # bytes; smaller sets are decoded in seconds


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


@dataclass(frozen=True)
class Decoded:
    """What the cache has of a list of pictures.

    Attributes:
        pixels: uint8 (n, channels, height, width), mapped from a file: those that could be decoded, in order.
        digests: uint8 (n, 16), of each picture's pixels, or None where they are not worked out.
        digest: of all pixels.
        broken: the reason for each picture that could not be decoded, by its place in the list.
    """

    pixels: np.ndarray
    digests: np.ndarray | None
    digest: str
    broken: dict[int, str]

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
    settings = {"image_size": decoding.size, "resize": decoding.resize, "channels": decoding.channels}
    names = [file.name for file in files]
    return decoded_once(names, lambda place: decoding(files[place].path), source, settings, states)


def decoded_once(
    names: Sequence[str],
    decode: Callable[[int], np.ndarray],
    source: str,
    settings: dict[str, Any],
    state: object,
    threads: int | None = None,
) -> Decoded:
    """Pictures' pixels from the cache; they are decoded if they are not in it.

    Several processes may call it at once: one decodes, and the others wait for it.

    Args:
        names: what the pictures are called in messages, in the order in which they are stored.
        decode: makes uint8 (channels, height, width) of the picture at a place in the list; raises UnreadableImage where
            that cannot be done.
        source: what the pictures are called together.
        settings: `image_size`, `resize` and `channels`, of which the pixels depend and which are listed.
        state: everything else that the pixels depend on, as numbers and strings in tuples and lists.
        threads: how many pictures are decoded at a time; by default as many as there are cores.

    Raises:
        CannotWrite: the disk is full, or the cache cannot be written; nothing is left behind.
        UserError: no picture can be decoded, or they have different sizes and none is set.
    """
    key = hashlib.blake2b(repr((FORMAT, source, settings, state)).encode("utf-8", "surrogatepass"), digest_size=16)
    entry = cache_folder() / key.hexdigest()
    if (found := _opened(entry, decode)) is not None:
        return found
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with _alone(entry.with_name(entry.name + LOCK), source):
            found = _opened(entry, decode)  # another process may have made it meanwhile
            if found is None:
                with _new_entry(entry) as (pixels, digests, facts):
                    facts |= {"source": source, "settings": settings}
                    facts |= _decode(pixels, digests, names, decode, source, threads or cpu_cores())
                found = _opened(entry, decode)
    except OSError as error:
        raise cannot_write(error, entry.parent) from None
    if found is None:
        raise UserError(f"{source} changed while it was decoded; start again when it does not change any more")
    return found


def _opened(entry: Path, decode: Callable[[int], np.ndarray]) -> Decoded | None:
    """An entry's images; None where there is none, or where a picture that was broken can be decoded now."""
    facts = read_facts(entry)
    if facts is None:
        return None
    broken = {int(place): reason for place, reason in facts["broken"].items()}
    with pixel_limit(MAX_PIXELS):
        for place in broken:
            with suppress(UnreadableImage):
                decode(place)
                return None
    with suppress(OSError):
        os.utime(entry / FACTS)  # the time of the last use
    try:
        return Decoded(*_mapped(entry, tuple(facts["shape"])), facts["digest"], broken)
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


@contextmanager
def _alone(path: Path, source: str) -> Iterator[None]:
    """Hold a lock file; say so where that means waiting for another process."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print_line(make_console(stderr=True), f"another process decodes the images of {source}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _new_entry(entry: Path) -> Iterator[tuple[BinaryIO, BinaryIO, dict[str, Any]]]:
    """Within it, files for pixels and digests, and a mapping for the facts; at its end they are an entry, or nothing."""
    part = entry.with_name(entry.name + UNFINISHED)
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    part.mkdir()
    facts: dict[str, Any] = {
        "format": FORMAT,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    try:
        with (part / PIXELS).open("wb") as pixels, (part / DIGESTS).open("wb") as digests:
            yield pixels, digests, facts
            _to_disk(pixels)
            _to_disk(digests)
        with (part / FACTS).open("wb") as file:
            file.write(json.dumps(facts).encode())
            _to_disk(file)
        shutil.rmtree(entry, ignore_errors=True)  # damaged, or of pictures that were broken
        os.replace(part, entry)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _decode(
    pixels: BinaryIO,
    digests: BinaryIO,
    names: Sequence[str],
    decode: Callable[[int], np.ndarray],
    source: str,
    threads: int,
) -> dict[str, Any]:
    """Write all images one after the other; returns shape, digest and broken ones."""
    shape: tuple[int, ...] | None = None
    first, broken = "", dict[int, str]()
    whole = hashlib.blake2b(digest_size=16)
    console = make_console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        pixel_limit(MAX_PIXELS),
        decoded(len(names), decode, threads) as results,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        for place, result in enumerate(progress.track(results, len(names), description="decoding")):
            if isinstance(result, UnreadableImage):
                broken[place] = str(result)
                continue
            if shape is None:
                shape, first = result.shape, names[place]
                _tell_size(len(names) * result.nbytes, len(names), source, result.shape, console)
            elif result.shape != shape:
                raise UserError(
                    f"the images of {source} have different sizes: {first} is {shape[1]} pixels high and {shape[2]} wide, "
                    f"{names[place]} {result.shape[1]} and {result.shape[2]}; set data.image_size, such as 96"
                )
            content = result.tobytes()
            digest = pixel_digest(content)
            whole.update(digest)
            pixels.write(content)
            digests.write(digest)
    if shape is None:
        raise UserError(f"none of the {len(names):,} images of {source} can be decoded: {next(iter(broken.values()))}")
    n = len(names) - len(broken)
    return {"shape": [n, *shape], "digest": whole.hexdigest(), "broken": broken}


def _tell_size(needed: int, n: int, source: str, shape: tuple[int, ...], console: Console) -> None:
    """Say what is about to be written, or refuse it where there is no space for it."""
    folder = cache_folder()
    if (free := shutil.disk_usage(folder).free) < needed:
        raise CannotWrite(
            f"the decoded images of {source} take {needed / 1e9:.3g} GB, and {folder} has {free / 1e9:.3g} GB left; "
            f"{way_out()}"
        )
    if needed >= _TOLD_FROM:
        size = f"{shape[1]}x{shape[2]} pixels, {'grey' if shape[0] == 1 else 'RGB'}"
        print_line(console, f"decoding {n:,} images of {source} once ({size}): {needed / 1e9:.3g} GB in {folder}")
