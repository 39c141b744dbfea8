"""Text that users give, in every small language that it is written into."""

from __future__ import annotations

import csv
import html
import io
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from fmnist_cv.analysis.tables import markdown, rich_table
from fmnist_cv.utils.user_text import for_csv, for_figure, for_markdown, make_console, one_line, plain, print_line

NASTY = [
    "a|b",
    "x\ny",
    "[old] set",
    "<b>x</b>",
    "=1+1",
    "$10_$20",
    "{{7*7}}",
    "*x*",
    "`x`",
    "# head",
    "1. item",
    "- item",
    "[a](http://b)",
    "&lt;",
    "back\\slash\\",
    "_em_ ~~gone~~",
    "\x1b[31mred",
    "a\tb",
    ":cat:",
    "long " * 60 + "end",
    "قميص",
    "👕 T-shirt",
    "\u202eright to left",
]


def rendered(lines: list[str]) -> str:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render("\n".join(lines))


def as_text(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", page)).strip()


@pytest.mark.parametrize("name", NASTY)
def test_markdown_shows_it_in_cells_headings_items_and_paragraphs(name: str) -> None:
    shown = " ".join(one_line(name).split()) if name.startswith("long") else one_line(name).strip()
    rows = re.findall(r"<td>(.*?)</td>", rendered(markdown(("class", "n"), [[name, "1"]])), re.DOTALL)
    assert [as_text(cell) for cell in rows] == [shown, "1"]
    for before in ("# ", "- ", ""):
        assert as_text(rendered([before + for_markdown(name)])) == shown


@given(st.text(min_size=1))
def test_whatever_the_text_it_stays_one_cell(name: str) -> None:
    page = rendered(markdown(("class", "n"), [[name, "1"]]))
    assert page.count("<td") == 2 and page.count("<tr") == 2
    assert set(re.findall(r"<(\w+)", page)) == {"table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("name", ["T-shirt/top", "fold_0", "cv.inner_holdout", "2 x 3", "bags & shoes", "-0.63", "R&D"])
def test_ordinary_text_is_left_as_it_is(name: str) -> None:
    assert for_markdown(name) == name == one_line(name) == for_figure(name)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum", "\t=1", "\n=1", "＝1"])
def test_a_spreadsheet_takes_no_cell_or_column_for_a_formula(name: str) -> None:
    table = pd.DataFrame(
        {"index": [1, 2], "label": [name, "a|b"], name: [-1.5, None], "n": pd.array([None, 3], "Int64")}
    )
    rows = list(csv.reader(io.StringIO(for_csv(table).to_csv(index=False), newline="")))
    assert rows == [["index", "label", "'" + name, "n"], ["1", "'" + name, "-1.5", ""], ["2", "a|b", "", "3"]]


def test_a_carriage_return_does_not_end_a_row() -> None:
    written = for_csv(pd.DataFrame({"label": ["a\r=1+1"]})).to_csv(index=False)
    assert list(csv.reader(io.StringIO(written, newline=""))) == [["label"], [r"a\r=1+1"]]


def test_an_empty_table_and_columns_of_one_name_stay_so() -> None:
    table = pd.DataFrame([[1, "=a"]], columns=["=a", "=a"])
    assert for_csv(table).to_csv(index=False) == "'=a,'=a\n1,'=a\n"
    assert for_csv(table[:0]).to_csv(index=False) == "'=a,'=a\n"


@pytest.mark.parametrize("name", NASTY)
def test_a_figure_draws_it_as_text(name: str) -> None:
    text = Figure().text(0, 0, for_figure(name))
    drawn, is_formula = text._preprocess_math(text.get_text())
    assert not is_formula and len(drawn) <= 24 and "\n" not in drawn
    assert one_line(name).startswith(drawn.removesuffix("…"))


@pytest.mark.parametrize("name", NASTY)
def test_tables_for_the_terminal_show_it(name: str) -> None:
    own, users = make_console(), Console(width=2000)
    for console in (own, users):
        console.width, console.file = 2000, io.StringIO()
        console.print(rich_table(name, (name, "n"), [[name, "1"]]))
        text = console.file.getvalue()
        assert text.count(one_line(name).strip()) == 3 and "\x1b[31m" not in text
    own.file = io.StringIO()
    own.print(":cat: [bold]x[/bold]")
    assert own.file.getvalue() == ":cat: [bold]x[/bold]\n"


def test_a_line_is_printed_as_it_is_on_any_console() -> None:
    console = Console(width=20, file=io.StringIO())
    print_line(console, ":cat: [bold]x[/bold] and much more than twenty letters")
    assert console.file.getvalue() == ":cat: [bold]x[/bold] and much more than twenty letters\n"  # type: ignore[attr-defined]


def test_bytes_of_file_names_that_are_no_text_can_be_written() -> None:
    table = Table()
    table.add_row(plain(b"caf\xe9.png".decode("utf-8", "surrogateescape")))
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    console.file.getvalue().encode()
    assert np.all([one_line(name).isprintable() or "قميص" in name for name in NASTY])
