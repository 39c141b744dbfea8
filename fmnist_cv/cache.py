"""`python -m fmnist_cv.cache`: what is in the cache of decoded images, and how to clear it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from fmnist_cv.command_line import FAILED, OK, CommandParser, command
from fmnist_cv.utils.user_text import make_console, one_line, plain, print_line

if TYPE_CHECKING:
    from fmnist_cv.data.cache import Entry

DESCRIPTION = """
List the cache of decoded images, or clear it.

  python -m fmnist_cv.cache
  python -m fmnist_cv.cache --clear

Image files (a folder, a manifest) are decoded and resized once for each set of files and settings. The pixels are kept in
$FMNIST_CV_CACHE or, without it, in the user's cache folder, from where all folds and later runs read them. What is cleared is
decoded again when it is needed next; runs that read it at the moment go on.
"""


@command(if_interrupted="what was removed until then is removed")
def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status: 0, 1 if something could not be cleared, 2 for a user error."""
    options = make_parser().parse(arguments)

    from fmnist_cv.data.cache import cache_folder, clear, entries  # here, since --help needs none of it

    console = make_console()
    if options.clear:
        freed, busy = clear()
        print_line(console, f"{_size(freed)} freed in {cache_folder()}")
        for path in busy:
            print_line(console, f"kept, since another process is decoding into it: {path}")
        return FAILED if busy else OK
    found = entries()
    size = f"{_size(sum(entry.size for entry in found))} of decoded images"
    if left := [entry for entry in found if entry.is_unfinished and not entry.is_being_made]:
        size += (
            f"; {_size(sum(entry.size for entry in left))} of them were left by decodings that were killed, and are removed by "
            "the next one, or with --clear"
        )
    print_line(console, f"{cache_folder()}: {size}")
    if found:
        from rich.table import Table

        table = Table("images of", "images", "pixels", "size", "last use", "folder")
        for entry in found:
            what = _described(entry.facts) if entry.facts else [_state(entry, left), "", ""]
            table.add_row(*map(plain, [*what, _size(entry.size), _when(entry.used), entry.path.name]))
        console.print(table)
    return OK


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser("cache", DESCRIPTION)
    parser.add_argument("--clear", action="store_true", help="remove all decoded images")
    return parser


def _described(facts: dict[str, Any]) -> list[str]:
    """Source, number of images and their pixels."""
    n, channels, height, width = facts["shape"]
    size = f"{height}x{width}, {'grey' if channels == 1 else 'RGB'}"
    how = "" if facts["settings"]["image_size"] is None else f", {facts['settings']['resize']}"
    broken = f" and {len(facts['broken']):,} broken" if facts["broken"] else ""
    return [one_line(facts["source"]), f"{n:,}{broken}", size + how]


def _state(entry: Entry, left: list[Entry]) -> str:
    if not entry.is_unfinished:
        return "damaged or of another version"
    return "left by a killed decoding" if entry in left else "being decoded"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


if __name__ == "__main__":
    sys.exit(main())
