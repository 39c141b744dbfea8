"""Links in documents lead somewhere: to files of the repository, and to headings of theirs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import PAGES, ROOT, name_of

EVERYWHERE = [*PAGES, *sorted((ROOT / "experiments").rglob("*.md")), ROOT / "lightning_logs" / "README.md"]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
GENERATED = {  # while the site is built
    *(
        ROOT / "docs" / "reference" / f"{name}.md"
        for name in ("commands", "configuration", "trainer", "search-configuration")
    ),
    ROOT / "docs" / "notebooks" / "compare_two_networks.md",
}


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def headings(page: Path) -> list[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    found = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found]


@pytest.mark.parametrize("page", EVERYWHERE, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not re.match("[a-z]+:", target)]
    broken = []
    for target in targets:
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        missing = path not in GENERATED and (not path.exists() or not path.is_relative_to(ROOT))
        if missing or (anchor and path not in GENERATED and path.suffix == ".md" and anchor not in headings(path)):
            broken.append(target)
    assert broken == []


def test_the_readme_links_to_every_guide_and_concept() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [
        page.relative_to(ROOT).as_posix()
        for part in ("guides", "concepts")
        for page in (ROOT / "docs" / part).glob("*.md")
    ]
    assert [page for page in pages if f"({page})" not in readme] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160
