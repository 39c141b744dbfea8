"""Whether files can be written somewhere, asked before the work whose results would go there."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from fmnist_cv.errors import UserError


def check_writable(folder: Path, option: str = "--log_dir", what: str = "runs under ") -> None:
    """Refuse a folder that cannot be written, before any work is done, leaving nothing behind.

    Args:
        folder: it need not be there.
        option: which names another.
        what: is to be written there, for the message.

    Raises:
        UserError: it, or the folder that would hold it, cannot be written.
    """
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {what}{folder}: {existing}: {error.strerror}; choose another folder with {option}"
        ) from None


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
