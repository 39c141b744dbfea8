"""The pixels of many image files, decoded once into the cache and from then on mapped from there."""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fmnist_cv.data.cache import (
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
class DecodedFiles:
    """What is left of a list of files.

    Attributes:
        pixels: uint8 (n, channels, height, width), mapped from a file: those that could be decoded, in order.
        digest: of the pixels.
        broken: the reason for each file that could not be decoded, by its place in the list.
    """

    pixels: np.ndarray
    digest: str
    broken: dict[int, str]


def decoded_files(files: Sequence[ImageFile], source: str, decoding: Decoding) -> DecodedFiles:
    """The files' pixels from the cache; they are decoded by all cores if they are not in it.

    Several processes may call it at once: one decodes, and the others wait for it.

    Args:
        files: in the order in which they are stored.
        source: the data set's folder or file, which tells equal names in two places apart.
        decoding: how they are decoded.

    Raises:
        CannotWrite: the disk is full, or the cache cannot be written; nothing is left behind.
        UserError: no file can be decoded, or they have different sizes and none is set.
    """
    settings = {"image_size": decoding.size, "resize": decoding.resize, "channels": decoding.channels}
    states = [(file.name, file.size, file.mtime_ns) for file in files]
    key = hashlib.blake2b(repr((FORMAT, source, settings, states)).encode("utf-8", "surrogatepass"), digest_size=16)
    entry = cache_folder() / key.hexdigest()
    if (found := _opened(entry, files, decoding)) is not None:
        return found
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with _alone(entry.with_name(entry.name + LOCK), source):
            found = _opened(entry, files, decoding)  # another process may have made it meanwhile
            if found is None:
                _make(entry, files, source, decoding, settings)
                found = _opened(entry, files, decoding)
    except OSError as error:
        raise cannot_write(error, entry.parent) from None
    if found is None:
        raise UserError(
            f"files of {source} changed while they were decoded; start again when they do not change any more"
        )
    return found


def _opened(entry: Path, files: Sequence[ImageFile], decoding: Decoding) -> DecodedFiles | None:
    """An entry's images; None where there is none, or where a file that was broken can be decoded now."""
    facts = read_facts(entry)
    if facts is None:
        return None
    broken = {int(place): reason for place, reason in facts["broken"].items()}
    with pixel_limit(MAX_PIXELS):
        for place in broken:
            with suppress(UnreadableImage):
                decoding(files[place].path)
                return None
    with suppress(OSError):
        os.utime(entry / FACTS)  # the time of the last use
    path, shape = entry / PIXELS, tuple(facts["shape"])
    try:
        # Copy on write: what a user's code changes in place stays in its process, and a page is shared until then.
        pixels = np.memmap(path, np.uint8, "c", shape=shape)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        pixels = np.memmap(path, np.uint8, "r", shape=shape)  # a private mapping counts as memory, and it is larger
    return DecodedFiles(pixels, facts["digest"], broken)


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


def _make(entry: Path, files: Sequence[ImageFile], source: str, decoding: Decoding, settings: dict[str, Any]) -> None:
    """Decode the files into a new entry."""
    part = entry.with_name(entry.name + UNFINISHED)
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    part.mkdir()
    try:
        with (part / PIXELS).open("wb") as file:
            facts = _decode(file, files, source, decoding)
            _to_disk(file)
        facts |= {
            "format": FORMAT,
            "source": source,
            "settings": settings,
            "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        with (part / FACTS).open("wb") as file:
            file.write(json.dumps(facts).encode())
            _to_disk(file)
        shutil.rmtree(entry, ignore_errors=True)  # damaged, or of files that were broken
        os.replace(part, entry)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _decode(file: BinaryIO, files: Sequence[ImageFile], source: str, decoding: Decoding) -> dict[str, Any]:
    """Write all images one after the other; returns shape, digest and broken files."""
    shape: tuple[int, ...] | None = None
    first, broken = "", dict[int, str]()
    digest = hashlib.blake2b(digest_size=16)
    console = make_console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        pixel_limit(MAX_PIXELS),
        decoded([f.path for f in files], decoding, cpu_cores()) as results,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        for place, result in enumerate(progress.track(results, len(files), description="decoding")):
            if isinstance(result, UnreadableImage):
                broken[place] = str(result)
                continue
            if shape is None:
                shape, first = result.shape, files[place].name
                _tell_size(len(files) * result.nbytes, len(files), source, result.shape, console)
            elif result.shape != shape:
                raise UserError(
                    f"the images of {source} have different sizes: {first} is {shape[1]} pixels high and {shape[2]} wide, "
                    f"{files[place].name} {result.shape[1]} and {result.shape[2]}; set data.image_size, such as 96"
                )
            content = result.tobytes()
            digest.update(content)
            file.write(content)
    if shape is None:
        raise UserError(f"none of the {len(files):,} images of {source} can be decoded: {next(iter(broken.values()))}")
    n = len(files) - len(broken)
    return {"shape": [n, *shape], "digest": digest.hexdigest(), "broken": broken}


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
