"""The parser's error messages, line by line: the text of each line, with the key and class that it is about.

jsonargparse describes a mismatch by a tree of all the types that it tried, one below the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fmnist_cv.config.class_paths import is_section

# Lines that only say that one of several types does not fit; other lines have a reason.
MISFIT = re.compile(
    r"Expected |Not a valid subclass|Not of type|Subclasses are disabled|Unexpected import|Unable to load config"
    r"|Subclass types expect|a class path \(str\)|a dict with|Does not validate|Import path does|Subtypes:|Errors:"
    r"|Given value|Problem with given|$"
)


@dataclass(frozen=True)
class Line:
    """One line of an error message and its place.

    Attributes:
        text: the line without what names its place.
        indent: characters before the text.
        path: the dotted key that it is about; "" at the top.
        depth: how many keys the path was named by.
        class_path: the class whose arguments it is about; "" for none.
    """

    text: str
    indent: int
    path: str
    depth: int
    class_path: str


def read_lines(text: str) -> Iterator[Line]:
    """The lines that are not empty, with their places by indentation."""
    above: list[tuple[int, str, str]] = []  # indentation, and a key or a class
    for raw in filter(str.strip, text.splitlines()):
        bare = raw.lstrip()
        indent = len(raw) - len(bare)
        content = re.sub(r"^(- )?(Type .* expects a function or a callable class: )?", "", bare)
        named = re.findall(r"""[Kk]ey "([\w.]+)"|class_path '([\w.]+)':""", content)
        is_sibling = bare.startswith("- ") or bool(named)
        while above and (above[-1][0] > indent or (above[-1][0] == indent and is_sibling)):
            above.pop()
        above += [(indent, key, class_path) for key, class_path in named]
        path, class_path, depth = "", "", 0
        for _, key, cls in above:
            if cls:
                class_path = cls
                continue
            whole = f"{key}.".startswith(f"{path}.")  # a section's key is named in full
            path = key if whole or not path else f"{path}.{'' if is_section(class_path) else 'init_args.'}{key}"
            depth += 1
        if inner := re.search(r"Got value: Namespace\(class_path='([\w.]+)'", content):
            class_path = inner[1]  # one of a list, and not the last one
        yield Line(
            re.sub(r"""^.*?([Kk]ey "[\w.]+"|class_path '[\w.]+'):\s*""", "", content), indent, path, depth, class_path
        )
