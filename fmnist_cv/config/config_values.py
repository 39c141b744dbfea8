"""Values of a parsed config: as YAML can hold them, and paths expanded."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from fmnist_cv.utils.paths import expand, user_path

# Keys of an experiment that hold paths, besides all values of the type Path.
_KEYS = re.compile(
    r"log_dir|cv\.splits|data\.init_args\.(root|path|leave_out|recoding|cache)|model\.init_args\.start_from"
    r"|trainer\.(.*\.)?init_args\.(dirpath|save_dir)"
)


def as_yaml_values(value: Any) -> Any:
    """Defaults of Lightning's callbacks that YAML cannot hold, members of string enumerations and devices, as strings."""
    if isinstance(value, Namespace):
        return Namespace({key: as_yaml_values(item) for key, item in vars(value).items()})  # type: ignore[no-untyped-call]
    if isinstance(value, list):
        return [as_yaml_values(item) for item in value]
    if isinstance(value, torch.device):
        return str(value)
    return value.value if isinstance(value, Enum) and isinstance(value, str) else value


def expand_config(tree: Any, key: str = "") -> Any:
    """An experiment's settings with all paths in them expanded: those that this package knows, and all of type Path."""
    if isinstance(tree, dict | Namespace):
        items = vars(tree) if isinstance(tree, Namespace) else tree
        return type(tree)(
            {name: expand_config(value, f"{key}.{name}" if key else str(name)) for name, value in items.items()}
        )
    if isinstance(tree, list):
        return [expand_config(value, f"{key}.{i}") for i, value in enumerate(tree)]
    if isinstance(tree, Path):
        return user_path(tree, key)
    return expand(tree, key) if isinstance(tree, str) and _KEYS.fullmatch(key) else tree
