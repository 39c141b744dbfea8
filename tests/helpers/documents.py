"""What the documents show: their code blocks, the commands in them, and their links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
RUN = "<!-- run -->"
FENCE = re.compile(r"(<!-- run -->\n)?^```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:python -m fmnist_cv\.|fmnist-cv )(\w+)(.*)")


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        language: what follows the backquotes.
        text: what is in it.
        title: the name of the file that it is, or "".
        runs: whether it is marked to be executed.
    """

    language: str
    text: str
    title: str
    runs: bool


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m[2], m[4], m[3] or "", m[1] is not None) for m in FENCE.finditer(text)]


def files(page: Path) -> dict[str, str]:
    """The files that a page shows, by name."""
    return {block.title: block.text for block in blocks(page) if block.title}


def command_lines(text: str) -> Iterator[tuple[str, list[str]]]:
    """(command, its arguments) of each command line of the package; continued lines are joined, comments left out."""
    for line in text.replace("\\\n", " ").splitlines():
        if match := COMMAND.match(line.strip()):
            yield match[1], shlex.split(match[2], comments=True)


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if any(block.language in languages for block in blocks(page))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()
