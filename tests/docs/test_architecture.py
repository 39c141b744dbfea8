"""The architecture page describes the package as it is: its rooms, and that imports run downwards only."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fmnist_cv"
COMMANDS = (
    "fit",
    "tune",
    "evaluate",
    "predict",
    "compare",
    "report",
    "export",
    "cache",
    "command_line",
    "completion",
    "__main__",
)
FREE = ("__init__",)  # the package's own module names public functions of all rooms, for imports on first use


def drawing_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "images" / "architecture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ranks() -> dict[str, tuple[int, int]]:
    """Where each part of the package is drawn: its row from the top, and its place in the row."""
    found = {}
    for row, parts in enumerate(drawing_script().ROWS):
        for place, (names, _) in enumerate(parts):
            for name in names.split(" · "):
                shown = COMMANDS if name == "commands" else [name.removesuffix(".py")]
                found |= dict.fromkeys(shown, (row, place))
    return found


def room_of(module: str) -> str:
    """ "fmnist_cv.engine.fold" is in "engine", "fmnist_cv.errors" in "errors"."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "fmnist_cv":
            assert node.module is not None
            yield from (
                [f"fmnist_cv.{alias.name}" for alias in node.names] if node.module == "fmnist_cv" else [node.module]
            )
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "fmnist_cv")


def test_every_part_of_the_package_is_drawn() -> None:
    parts = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    parts |= {path.stem for path in PACKAGE.glob("*.py")} - set(FREE)
    assert parts <= set(ranks())
    assert set(ranks()) - parts <= set(COMMANDS)


@pytest.mark.parametrize("room", sorted(ranks()))
def test_imports_run_downwards_only(room: str) -> None:
    rank = ranks()
    files = sorted((PACKAGE / room).rglob("*.py")) if (PACKAGE / room).is_dir() else [PACKAGE / f"{room}.py"]
    upwards = []
    for path in filter(Path.exists, files):
        for module in imports(path):
            other = room_of(module)
            # commands share a place, and so do the parts of the lowest row
            if other not in (room, "__version__") and rank[other] < rank[room]:
                upwards.append(f"{path.relative_to(ROOT)} imports {module}")
    assert upwards == []


def test_the_drawing_is_the_one_that_its_script_makes() -> None:
    assert (ROOT / "docs" / "images" / "architecture.svg").read_text(encoding="utf-8") == drawing_script().drawing()


def test_every_module_that_is_named_exists() -> None:
    page, notes = (
        (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"),
        "\n".join(drawing_script().NOTES.values()),
    )
    names = re.findall(r"(?<![\w/*])(?:\w+/)*\w+\.py\b|\b\w+/\w+_internals\b", f"{page}\n{notes}")
    assert len(set(names)) > 20
    assert sorted({name for name in names if not (PACKAGE / name).exists()}) == []
