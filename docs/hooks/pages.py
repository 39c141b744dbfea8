"""MkDocs hooks: pages made while the site is built, and the repository's own files that pages link to.

A link that leads out of `docs/` is right as it stands when the repository is read; the file that it names is copied into
the site under the same path, and the link is changed to lead there. A file that does not exist is left to MkDocs, which
fails the build.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import notebooks
import parsers
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = {
    "reference/commands.md": parsers.commands_page,
    "reference/configuration.md": parsers.configuration_page,
    "reference/trainer.md": parsers.trainer_page,
    "reference/search-configuration.md": parsers.search_page,
}
NOTEBOOK = "notebooks/compare_two_networks"
LINK = re.compile(r"(?<=\]\()([^)\s#]+)")
FENCE = re.compile(r"^( *)(```+).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
# The theme loads this script from another host; the copy keeps the pages readable without a network.
FOREIGN_SCRIPT, OWN_SCRIPT = "https://unpkg.com/iframe-worker/shim", "javascripts/iframe-worker.js"
ELSEWHERE = {"README.md": "index.md"}  # what stands for a file of the repository in the site


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, the notebook, and every file of the repository that a page links to."""
    for uri, make in GENERATED.items():
        files.append(File.generated(config, uri, content=make()))
    notebook = DOCS / f"{NOTEBOOK}.ipynb"
    files.append(File.generated(config, f"{NOTEBOOK}.md", content=notebooks.notebook_page(notebook)))
    files.append(File.generated(config, f"{NOTEBOOK}.ipynb", abs_src_path=str(notebook)))
    waiting = list(DOCS.rglob("*.md"))
    added: set[str] = set()
    while waiting:
        for path in linked_files(waiting.pop()):
            uri = path.relative_to(ROOT).as_posix()
            if uri in added or uri in ELSEWHERE:
                continue
            added.add(uri)
            files.append(File.generated(config, uri, abs_src_path=str(path)))
            if path.suffix == ".md":
                waiting.append(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that leave `docs/` to the copies in the site."""
    source = page.file.abs_src_path
    if source is None or page.file.src_uri in GENERATED or page.file.src_uri.startswith("notebooks/"):
        return markdown
    here = Path(source).parent

    def lead(match: re.Match[str]) -> str:
        target = _in_repository(here, match[1])
        if target is None:
            return match[1]
        uri = target.relative_to(ROOT).as_posix()
        uri = ELSEWHERE.get(uri, uri)
        return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")

    return outside_code(markdown, lambda text: LINK.sub(lead, text))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load the theme's script from the site itself."""
    return output.replace(FOREIGN_SCRIPT, posixpath.relpath(OWN_SCRIPT, posixpath.dirname(page.file.dest_uri) or "."))


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """The same for the page that a server shows for an unknown address."""
    return output_content.replace(FOREIGN_SCRIPT, f"/{OWN_SCRIPT}")


def linked_files(page: Path) -> Iterator[Path]:
    """The files of the repository outside `docs/` that a page links to."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if (path := _in_repository(page.parent, target)) is not None:
            yield path


def outside_code(markdown: str, change: Any) -> str:
    """The text with `change` applied to what is not in a code block."""
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def _in_repository(folder: Path, target: str) -> Path | None:
    """The file outside `docs/` that a relative link names, or None; of a folder, its README.md."""
    if re.match(r"[a-z]+:", target):
        return None
    path = (folder / target).resolve()
    if path.is_dir() and (path / "README.md").is_file():
        path /= "README.md"
    if not path.is_file() or not path.is_relative_to(ROOT) or path.is_relative_to(DOCS):
        return None
    return path
