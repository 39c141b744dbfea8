"""Checks that files can be written before the work starts, and explains disk errors afterwards."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmnist_cv.errors import CannotWrite, UserError


def check_writable(folder: Path, option: str = "--log_dir", what: str = "runs under ") -> None:
    """Refuse a folder that cannot be written, before any work is done; leaves no files behind.

    Args:
        folder: it need not exist.
        option: the option that chooses another, for the message.
        what: what is to be written there, for the message.

    Raises:
        UserError: it, or the folder that would contain it, cannot be written.
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
        UserError: it is a folder, a device or the like, or its folder is missing or cannot be written.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"cannot write {path}: it is not a regular file; choose another with {option}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}; choose another with {option}")
    check_writable(path.parent, option, "into ")


def is_writable(folder: Path) -> bool:
    """Whether files can be created in a folder, tested by creating one; a full disk counts as writable."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        return error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM)


REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
}


def disk_problem(error: OSError, folder: Path) -> str | None:
    """The message for an error about a file in this folder: path, reason, remedy. None for other errors."""
    path = error.filename
    if not isinstance(path, str | os.PathLike) or not Path(path).absolute().is_relative_to(folder.absolute()):
        return None
    if not folder.is_dir():
        return (
            f"cannot write {path}: the folder {folder} was moved or deleted meanwhile; restore it, or start a new run"
        )
    remedy = REMEDIES.get(error.errno or 0)
    if remedy is None:
        return f"cannot read or write {path}: {error.strerror or error}; check its disk"
    return f"cannot write {path}: {error.strerror}; {remedy}"


@contextmanager
def explain_disk_errors(folder: Path, then: str = "") -> Iterator[None]:
    """Turn an error about a file in this folder into a one-line CannotWrite.

    Args:
        folder: e.g. of a run.
        then: what to do once the disk is writable again.

    Raises:
        CannotWrite: with path, reason and remedy.
    """
    try:
        yield
    except OSError as error:
        if problem := disk_problem(error, folder):
            raise CannotWrite(problem + then) from None
        raise
