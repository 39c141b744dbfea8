"""Files that users name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fmnist_cv.errors import UserError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def regular_file(path: str | Path) -> Path:
    """The path, if it leads to a file on a disk. Reading a pipe may wait for ever, and a device may have no end.

    Symbolic links are followed.

    Raises:
        UserError: it is a folder, a pipe, a socket or a device.
        OSError: it is missing or out of reach, as `open` would raise.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise UserError(f"{path} is {kind}; give a regular file")
    return Path(path)


def files_in(folder: str | Path) -> Iterator[str]:
    """The files in a folder and its subfolders, then in linked folders, except hidden ones; no folder is searched twice.

    Raises:
        UserError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read the folder {error.filename}: {error.strerror}")

    waiting, searched = [os.fspath(folder)], set[str]()
    while waiting:
        for parent, folders, files in os.walk(waiting.pop(0), onerror=refuse):
            real = os.path.realpath(parent)
            if real in searched:
                folders.clear()
                continue
            searched.add(real)
            folders[:] = [name for name in folders if not name.startswith(".")]
            waiting += [path for name in folders if os.path.islink(path := os.path.join(parent, name))]
            yield from (os.path.join(parent, name) for name in files if not name.startswith("."))
