"""The site: it is built without a warning, has the generated pages, and loads nothing from another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from documents import ROOT

sys.path.append(str(ROOT / "docs" / "hooks"))

import parsers

LOADED = re.compile(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=\"?(https?:)?//", re.IGNORECASE)


def test_the_reference_has_every_option_of_every_command() -> None:
    commands, keys = (
        parsers.commands_page(),
        parsers.configuration_page() + parsers.trainer_page() + parsers.search_page(),
    )
    missing = []
    for command in parsers.COMMANDS:
        for action in parsers.actions(parsers.parser_of(command)):
            name = action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
            sections = ("cv", "selection", "trainer")  # their keys are listed, each in a row of its own
            if action.dest not in sections and f"`{name}" not in commands and f"| `{action.dest}` |" not in keys:
                missing.append(f"{command} {name}")
    assert missing == []


def test_the_reference_explains_each_key() -> None:
    pages = parsers.commands_page() + parsers.configuration_page() + parsers.search_page()
    rows = [line[2:-2].rsplit(" | ", 1) for line in pages.splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    unexplained = [row[0].strip() for row in rows if not row[-1].strip()]
    assert unexplained == []


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs the extra docs")
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 30
    assert [page.name for page in pages if LOADED.search(page.read_text(encoding="utf-8"))] == []
