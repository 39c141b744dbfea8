"""The folder of decoded images: its entries, made, listed and cleared.

An entry is a folder, named by a digest of everything that its pixels depend on. It is made beside under another name and
renamed when it is complete, so that an entry is complete or absent. What a killed process left is removed by the next one that
makes an entry.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from fmnist_cv.errors import CannotWrite
from fmnist_cv.utils.paths import user_path
from fmnist_cv.utils.user_text import make_console, print_line

VARIABLE = "FMNIST_CV_CACHE"
FORMAT = 1  # of an entry; to be raised when other pixels are made of the same files and settings
PIXELS, DIGESTS, FACTS = "images.bin", "digests.bin", "info.json"  # the files of an entry
UNFINISHED, LOCK = ".part", ".lock"  # follow an entry's name


@dataclass(frozen=True)
class Entry:
    """A folder of the cache.

    Attributes:
        path: the folder.
        facts: source, settings, shape and digest; empty where the entry is unfinished or damaged.
        size: in bytes.
        used: seconds since 1970.
    """

    path: Path
    facts: dict[str, Any]
    size: int
    used: float

    @property
    def is_unfinished(self) -> bool:
        """Being made, or left by a process that was killed."""
        return self.path.name.endswith(UNFINISHED)

    @property
    def is_being_made(self) -> bool:
        """Another process is making it."""
        try:
            with FileLock(_lock_of(self.path), timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # of another user
            return False


def cache_folder() -> Path:
    """$FMNIST_CV_CACHE, or the folder that the system has for caches.

    Raises:
        UserError: the variable cannot be used as a path.
    """
    if given := os.environ.get(VARIABLE):
        return user_path(given, f"${VARIABLE}")
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "fmnist_cv"


def entries() -> list[Entry]:
    """What is in the cache, last used first; unfinished entries, which a killed process left, are among them."""
    found = []
    folder = cache_folder()
    for path in folder.iterdir() if folder.is_dir() else ():
        if not (path.is_dir() and _is_ours(path)):
            continue
        with suppress(OSError):  # another process removes it or gives it its name; or it is another user's
            size = sum(file.stat().st_size for file in path.iterdir())
            used = (path / FACTS if (path / FACTS).exists() else path).stat().st_mtime
            facts = {} if path.name.endswith(UNFINISHED) else read_facts(path) or {}
            found.append(Entry(path, facts, size, used))
    return sorted(found, key=lambda entry: -entry.used)


def clear(only_unfinished: bool = False) -> tuple[int, list[Path]]:
    """Remove everything from the cache but what is being made.

    Args:
        only_unfinished: remove only what processes left that were killed.

    Returns:
        The bytes that were freed, and the entries that are being made by another process.

    Raises:
        CannotWrite: an entry cannot be removed; what killed processes left is then skipped.
    """
    freed, busy = 0, []
    for entry in entries():
        if only_unfinished and not entry.is_unfinished:
            continue
        try:
            with _removable(_lock_of(entry.path)), suppress(FileNotFoundError):  # another process has removed it
                shutil.rmtree(entry.path)
                freed += entry.size
        except Timeout:
            busy.append(entry.path)
        except OSError as error:
            if not only_unfinished:
                raise cannot_write(error, entry.path.parent) from None
    for lock in () if only_unfinished else cache_folder().glob(f"*{LOCK}"):  # of decodings that came to nothing
        if _is_ours(lock):
            with suppress(Timeout, OSError), _removable(lock):
                pass
    return freed, busy


@contextmanager
def _removable(lock: Path) -> Iterator[None]:
    """Hold a lock that is free, and remove its file: while it is held, so that nobody else holds it then.

    Raises:
        Timeout: it is held by another process.
    """
    with FileLock(lock, timeout=0):
        yield
        with suppress(PermissionError):  # Windows removes it when it is released
            lock.unlink(missing_ok=True)


def _lock_of(path: Path) -> Path:
    return path.with_suffix(LOCK)


def _is_ours(path: Path) -> bool:
    name = path.stem
    return path.suffix in ("", UNFINISHED, LOCK) and len(name) == 32 and set(name) <= set("0123456789abcdef")


@contextmanager
def alone(entry: Path, source: str) -> Iterator[None]:
    """Hold the lock of an entry; say so where that means waiting for another process."""
    lock = FileLock(_lock_of(entry))
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
def new_entry(entry: Path, facts: dict[str, Any]) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Within it, files for pixels and digests; at its end they are an entry with these facts, or nothing."""
    part = entry.with_name(entry.name + UNFINISHED)
    with suppress(CannotWrite):  # of another user
        clear(only_unfinished=True)
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed; its lock is this one's
    part.mkdir()
    try:
        with (part / PIXELS).open("wb") as pixels, (part / DIGESTS).open("wb") as digests:
            yield pixels, digests
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


def read_facts(entry: Path) -> dict[str, Any] | None:
    """An entry's facts; None where it is absent, damaged or of another version."""
    try:
        facts: dict[str, Any] = json.loads((entry / FACTS).read_text(encoding="utf-8"))
        sizes = [(entry / name).stat().st_size for name in (PIXELS, DIGESTS)]
    except (OSError, ValueError):
        return None
    if facts.get("format") != FORMAT or sizes != [math.prod(facts["shape"]), 16 * facts["shape"][0]]:
        return None
    return facts


def cannot_write(error: OSError, folder: Path, needed: int = 0) -> CannotWrite:
    """The message for an error of the system; `needed` is the size of all pixels in bytes, where it is known."""
    what = f"the decoded images, which take {needed / 1e9:.3g} GB," if needed else "the decoded images"
    return CannotWrite(f"cannot write {what} in {folder}: {error.strerror or error}; {way_out()}")


def way_out() -> str:
    return f"free some space (python -m fmnist_cv.cache --clear), or set ${VARIABLE} to a folder on another disk"
