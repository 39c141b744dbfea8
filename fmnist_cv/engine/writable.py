"""Whether files can be written somewhere, asked before the work; and what is said where they could not be after it."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmnist_cv.errors import CannotWrite, UserError


def check_writable(folder: Path, option: str = "--log_dir", what: str = "runs under ") -> None:
    """Refuse a folder that cannot be written, before any work is done, leaving nothing behind.

    Args:
        folder: it need not be there.
        option: which names another.
        what: is to be written there, for the message.

    Raises:
        UserError: it, or the folder that would hold it, cannot be written.
    """
    existing = nearest_folder(folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {what}{folder}: {existing}: {error.strerror}; choose another folder with {option}"
        ) from None


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())


def check_file_writable(path: Path, option: str) -> None:
    """Refuse a file that cannot be written or replaced, before any work is done.

    Raises:
        UserError: there is a folder, a device or the like in its place, or its folder is missing or cannot be written.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"cannot write {path}: it is no ordinary file; choose another with {option}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}; choose another with {option}")
    check_writable(path.parent, option, "into ")


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, found out by making one; a full disk is not what is asked."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        return error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM)


WAYS_OUT = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
}


def disk_problem(error: OSError, folder: Path) -> str | None:
    """What to say of an error about a file in this folder: path, reason, way out. None for one about anything else."""
    path = error.filename
    if not isinstance(path, str | os.PathLike) or not Path(path).absolute().is_relative_to(folder.absolute()):
        return None
    if not folder.is_dir():
        return (
            f"cannot write {path}: the folder {folder} was moved or deleted meanwhile; put it back, or start a new run"
        )
    way_out = WAYS_OUT.get(error.errno or 0)
    if way_out is None:
        return f"cannot read or write {path}: {error.strerror or error}; look after its disk"
    return f"cannot write {path}: {error.strerror}; {way_out}"


@contextmanager
def explain_disk_errors(folder: Path, then: str = "") -> Iterator[None]:
    """Make one line of an error about a file in this folder.

    Args:
        folder: a run's, say.
        then: what to do when the disk can be written again.

    Raises:
        CannotWrite: with path, reason and way out.
    """
    try:
        yield
    except OSError as error:
        if problem := disk_problem(error, folder):
            raise CannotWrite(problem + then) from None
        raise
