"""What makes two experiments compute the same: their settings, but for those that a resumed run may change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# Where and how a run is computed, not what.
MAY_CHANGE_ON_RESUME = (
    "cv.workers",
    "cv.fold",
    "log_dir",
    "report",
    "trainer.accelerator",
    "trainer.devices",
    "data.init_args.root",
    "data.init_args.download",
    "data.init_args.path",
)
_MAY_CHANGE = re.compile(rf"({'|'.join(map(re.escape, MAY_CHANGE_ON_RESUME))})(\.|$)")


def identity(config: Any) -> dict[str, Any]:
    """The settings of a resolved config, by their dotted keys, that decide what is computed."""
    return {key: value for key, value in flatten(config) if not _MAY_CHANGE.match(key)}


def same_setting(key: str, a: Any, b: Any) -> bool:
    """Whether two values of a dotted key compute the same; a file of folds may have moved: its folds are compared instead."""
    return a == b or (key == "cv.splits" and None not in (a, b) and "data" not in (a, b))


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and leaves of nested dicts and lists."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from flatten(value, f"{prefix}.{i}")
    else:
        yield prefix, tree
