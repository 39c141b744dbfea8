"""The folder of decoded images: its entries, listed and cleared.

An entry is a folder, named by a digest of everything that its pixels depend on. It is made beside under another name and
renamed when it is complete, so that an entry is complete or absent (see `fmnist_cv.data.decoded_files`).
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fmnist_cv.errors import CannotWrite
from fmnist_cv.utils.paths import user_path

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
        with suppress(FileNotFoundError):  # another process removes it, or completes it and gives it its name
            size = sum(file.stat().st_size for file in path.iterdir())
            finished = not path.name.endswith(UNFINISHED)
            used = (path / FACTS if (path / FACTS).exists() else path).stat().st_mtime
            found.append(Entry(path, (read_facts(path) or {}) if finished else {}, size, used))
    return sorted(found, key=lambda entry: -entry.used)


def clear() -> tuple[int, list[Path]]:
    """Remove everything from the cache but what is being made.

    Returns:
        The bytes that were freed, and the entries that are being made by another process.

    Raises:
        CannotWrite: an entry cannot be removed.
    """
    freed, busy = 0, []
    for entry in entries():
        lock = entry.path.with_name(entry.path.name.removesuffix(UNFINISHED) + LOCK)
        try:
            with FileLock(lock, timeout=0), suppress(FileNotFoundError):  # another process has removed it
                shutil.rmtree(entry.path)
                freed += entry.size
            lock.unlink(missing_ok=True)
        except Timeout:
            busy.append(entry.path)
        except OSError as error:
            raise cannot_write(error, entry.path.parent) from None
    return freed, busy


def _is_ours(path: Path) -> bool:
    name = path.name.removesuffix(UNFINISHED)
    return len(name) == 32 and set(name) <= set("0123456789abcdef")


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


def cannot_write(error: OSError, folder: Path) -> CannotWrite:
    return CannotWrite(f"cannot write the decoded images in {folder}: {error.strerror or error}; {way_out()}")


def way_out() -> str:
    return f"free some space (python -m fmnist_cv.cache --clear), or set ${VARIABLE} to a folder on another disk"
