"""Users' own text (names of classes, files, experiments) in formats where some of its characters mean something else."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

# Control characters, line and paragraph separators, direction overrides, and bytes of file names that are not UTF-8.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# What CommonMark or GitHub's tables and formulas read as more than a character; underscores within words are none of it.
_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^(?:[#+-](?=\s|$)|\d{1,9}[.)](?=\s|$))")
_HTML = {"<": "&lt;", ">": "&gt;"}
_ENTITY = re.compile(r"&(?=#?\w+;)")
# OWASP, "CSV injection": a spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def one_line(text: str) -> str:
    r"""The text with line breaks, control characters and the like as escapes: `\n`, `\x1b`."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def for_markdown(text: str) -> str:
    """The text as it reads, in a Markdown table's cell, a list's item, a heading or a paragraph."""
    text = _MARKDOWN.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", one_line(text))
    return re.sub("[<>]", lambda found: _HTML[found[0]], _ENTITY.sub("&amp;", text))


def for_csv(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a CSV file that a spreadsheet may open: an apostrophe before what it would run as a formula."""
    from pandas.api.types import is_numeric_dtype  # here, since most commands write no CSV

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        value = value.replace("\r", r"\r")  # pandas does not quote a cell for it, but a reader ends a row with it
        return f"'{value}" if value.startswith(_FORMULA) else value

    safe = table.apply(lambda column: column if is_numeric_dtype(column) else column.map(cell))
    renamed: pd.DataFrame = safe.set_axis([cell(name) for name in table.columns], axis=1)
    return renamed


def for_figure(text: str, longest: int = 24) -> str:
    """The text as matplotlib draws it: no formula between two `$`, and cut where it would leave no room for the figure."""
    text = one_line(text)
    return (text if len(text) <= longest else text[: longest - 1] + "…").replace("$", r"\$")


def plain(text: str) -> Text:
    """The text for one of Rich's tables, which would take `[bold]` for markup and `:cat:` for a picture."""
    return Text(one_line(text))


def make_console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: `[bold]` and `:cat:` are no markup. Without a terminal it is 120 wide."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(width=None if terminal else 120, stderr=stderr, markup=False, emoji=False, highlight=False)


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print text as it is and unbroken, also on a user's console, which may read markup in it."""
    console.print(text, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)
