"""YAML that users give, in files and in options: bounded in size, depth and what its aliases stand for; no key twice."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, MappingStartEvent, NodeEvent, ScalarEvent

from fmnist_cv.config.jsonargparse_internals.private import default_yaml_loader, use_yaml_loader
from fmnist_cv.errors import UserError
from fmnist_cv.utils.files import regular_file
from fmnist_cv.utils.paths import shortened

MAX_BYTES = 1_000_000  # a config has a few thousand
MAX_VALUES = 3_000  # a resolved config has some 200; jsonargparse's time grows with the square of a list's length
MAX_DEPTH = 30

_Default: Any = default_yaml_loader()


class BoundedLoader:
    """As jsonargparse's loader, which reads 1e-3 as a number, for YAML within bounds.

    Raises:
        UserError: the YAML exceeds a bound, or has a key twice.
        yaml.YAMLError: it is not YAML.
    """

    def __init__(self, stream: str) -> None:
        self._text = stream

    def get_single_data(self) -> Any:
        return load_yaml(self._text)

    def dispose(self) -> None:
        """Nothing is kept open; `yaml.load` calls this."""


use_yaml_loader(BoundedLoader)


def load_yaml(text: str) -> Any:
    """The content of YAML text, which the caller may change; raises as `BoundedLoader` does."""
    return deepcopy(_content(text))


@lru_cache(maxsize=32)  # a run reads its config some ten times
def _content(text: str) -> Any:
    check_yaml(text)
    loader = _Default(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError:
        raise
    except Exception as error:  # e.g. KeyError for "!!bool x"
        raise yaml.YAMLError(f"a value does not fit its tag ({error})") from None
    finally:
        loader.dispose()


def read_yaml_text(path: Path, what: str) -> str:
    """The text of a YAML file, which `load_yaml` takes.

    Args:
        path: the file.
        what: what it is, for messages: "config", "recoding".

    Raises:
        UserError: it cannot be read, is not YAML, exceeds a bound, or has a key twice.
    """
    try:
        with open(regular_file(path), "rb") as file:
            text = file.read(MAX_BYTES + 1).decode("utf-8-sig")
        load_yaml(text)
    except UserError as error:
        raise UserError(f"{what} {path}: {str(error).removeprefix(f'{path} ')}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"{what} {path} cannot be read as YAML: {reason}") from None
    return text


def check_yaml(text: str) -> None:
    """Go through the text without building anything from it.

    Raises:
        UserError: it exceeds a bound, or has a key twice.
        yaml.YAMLError: it is not YAML.
    """
    if len(text) > MAX_BYTES:
        raise UserError(f"YAML of more than {MAX_BYTES:,} characters is not read")
    open_nodes: list[_Open] = [_Open(None)]
    sizes: dict[str, int] = {}  # of what an anchor names: values, with those that its aliases stand for
    for event in _events(text):
        line = event.start_mark.line + 1
        if isinstance(event, NodeEvent):
            if isinstance(event, AliasEvent) and event.anchor not in sizes:
                inside = any(node.start is not None and node.start.anchor == event.anchor for node in open_nodes)
                reason = "is a part of what it stands for" if inside else f"has no &{event.anchor} before it"
                raise UserError(f"line {line}: the alias *{event.anchor} {reason}")
            size = sizes[str(event.anchor)] if isinstance(event, AliasEvent) else 1
            open_nodes[-1].take(event, line)
            open_nodes[-1].size += size
            if isinstance(event, ScalarEvent) and event.anchor:
                sizes[event.anchor] = 1
        if isinstance(event, CollectionStartEvent):
            open_nodes.append(_Open(event))
            if len(open_nodes) > MAX_DEPTH + 1:
                raise UserError(f"line {line}: YAML nested more than {MAX_DEPTH} deep is not read")
        elif isinstance(event, CollectionEndEvent):
            closed = open_nodes.pop()
            open_nodes[-1].size += closed.size
            if closed.start is not None and closed.start.anchor:
                sizes[closed.start.anchor] = 1 + closed.size
        if sum(node.size for node in open_nodes) > MAX_VALUES:
            aliases = ", counting what aliases stand for," if sizes else ""
            raise UserError(f"line {line}: YAML with more than {MAX_VALUES:,} values{aliases} is not read")


class _Open:
    """A list or mapping whose end has not been reached, and how many values are in it; the outermost is the document."""

    def __init__(self, start: CollectionStartEvent | None) -> None:
        self.size, self.start = 0, start
        self._keys: dict[tuple[str | None, str], int] | None = {} if isinstance(start, MappingStartEvent) else None
        self._is_key = True

    def take(self, event: NodeEvent, line: int) -> None:
        """Note a node of this list or mapping, and refuse a key that came before."""
        if self._keys is None:
            return
        if self._is_key and isinstance(event, ScalarEvent) and not (event.value == "<<" and event.implicit[0]):
            key = (event.tag, event.value)
            if key in self._keys:
                before = self._keys[key]
                where = f"line {line}" if before == line else f"lines {before} and {line}"
                raise UserError(f"'{shortened(event.value)}' is given twice, in {where}; keep one of them")
            self._keys[key] = line
        self._is_key = not self._is_key


def _events(text: str) -> Iterator[Any]:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a command line that are no text
        raise yaml.YAMLError("it is not UTF-8") from None
    yield from yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
