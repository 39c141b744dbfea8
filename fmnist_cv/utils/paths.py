"""Paths as users write them: `~`, `~user`, `$NAME` and `${NAME}` are expanded as in a shell."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from fmnist_cv.errors import UserError

LONGEST_PART = 255  # bytes that the usual file systems allow for the name of a file or folder
LONGEST_NAME = 200  # of an experiment, search or run: what is written for it has longer ones, such as NAME_SYNTHETIC
LONGEST = 4000  # bytes of a whole path; Linux takes 4,095

_VARIABLE = re.compile(r"\$(?:(?P<name>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)\})", re.ASCII)


def expand(given: str | os.PathLike[str], what: str) -> str:
    """The path with `~` and variables replaced.

    What cannot be replaced stands for itself if there is such a file or folder; `./~` is always a folder called `~`.

    Args:
        given: what the user wrote.
        what: the option or key, for messages.

    Raises:
        UserError: a variable is not set, or there is no such home folder.
    """
    text = os.fspath(given)

    def value(match: re.Match[str]) -> str:
        name = match["name"] or match["braced"]
        if found := os.environ.get(name):
            return found
        if _exists(text):
            return match[0]
        raise UserError(f"{what} is '{text}', but the environment variable {name} is not set")

    expanded = _VARIABLE.sub(value, text)
    if not expanded.startswith("~"):
        return expanded
    home = os.path.expanduser(expanded)
    if home == expanded and not _exists(text):
        user = re.split(r"[/\\]", expanded)[0]
        reason = f"there is no user '{user[1:]}'" if user != "~" else "the home folder is unknown (HOME is not set)"
        raise UserError(f"{what} is '{text}', but {reason}; for a file or folder of that name write ./{expanded}")
    return home


def user_path(given: str | os.PathLike[str], what: str) -> Path:
    """The path that a user gives, expanded, and refused where no file system takes it.

    Raises:
        UserError: it is empty, cannot be expanded, is too long, or holds a line break or another control character and
            is not there.
    """
    text = os.fspath(given)
    if not text.strip():
        raise UserError(f"{what} is empty; give a path, or leave it out")
    if re.search(r"[\0-\x1f\x7f]", text) and not _exists(text):
        raise UserError(f"{what} is {text!r}; a path must not contain line breaks or other control characters")
    path = Path(expand(text, what))
    longest = max(len(os.fsencode(part)) for part in (*path.parts, ""))
    if longest > LONGEST_PART:
        raise UserError(
            f"{what} is '{shortened(text)}': one part of it has {longest} bytes, and file systems take no "
            f"more than {LONGEST_PART}"
        )
    if (length := len(os.fsencode(path))) > LONGEST:
        raise UserError(f"{what} is '{shortened(text)}' with {length} bytes; give a path of at most {LONGEST}")
    # of "./~" only "~" would be left, which others, such as Lightning, take for the home folder
    return path.absolute() if str(path).startswith("~") else path


def argument(text: str) -> Path:
    """A command-line argument that is a path, for argparse's `type`.

    Raises:
        argparse.ArgumentTypeError: it cannot be used, see `user_path`; argparse names the argument.
    """
    try:
        return user_path(text, "it")
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check_name(name: str, what: str, longest: int = LONGEST_NAME) -> None:
    """Refuse a name that is to be a folder's and cannot be.

    Raises:
        UserError: it is empty, too long, or has characters that cannot be printed.
    """
    if not name.strip():
        raise UserError(f"{what} is empty; give a name")
    if not name.isprintable():
        raise UserError(
            f"{what} is {shortened(ascii(name))}; a name must not contain line breaks or unprintable characters"
        )
    if (length := len(os.fsencode(name))) > longest:
        raise UserError(f"{what} is '{shortened(name)}' with {length} bytes; a name has at most {longest}")


def shortened(text: str, length: int = 60) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= length else f"{text[:length]}…"


def _exists(text: str) -> bool:
    try:
        return os.path.lexists(text)
    except ValueError:  # a null character
        return False
