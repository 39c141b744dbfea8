"""Reads and checks a run's files; a damaged file is reported with its path, the reason and the remedy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np

from fmnist_cv.errors import UserError
from fmnist_cv.utils.files import regular_file

Types = Mapping[str, type | UnionType]
Shape = tuple[int | None, ...]  # None: any size


class Damaged(UserError):
    """A file of a run is missing, or differs from what was written."""

    def __init__(self, path: Path, reason: object, remedy: str) -> None:
        super().__init__(f"cannot read {path}: {reason}; {remedy}")


def digest(content: Mapping[str, object]) -> str:
    """The digest of a JSON file's content; the file contains it under the key "digest"."""
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def read_json(path: Path, needed: Types, remedy: str) -> dict[str, Any]:
    """Read one of a run's JSON files, without its digest; files of older versions have none.

    Args:
        path: the file.
        needed: required keys, with the types of their values.
        remedy: ends the error message.

    Raises:
        Damaged: the file is missing, damaged or has other content.
    """
    try:
        content = json.loads(regular_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, UserError) as error:
        raise Damaged(path, getattr(error, "strerror", None) or error, remedy) from None
    if not isinstance(content, dict):
        raise Damaged(path, "it contains no JSON object", remedy)
    if "digest" in content and content.pop("digest") != digest(content):
        raise Damaged(path, "its content does not match its digest, so it was damaged or edited", remedy)
    if wrong := wrong_keys(content, needed):
        raise Damaged(path, f"missing or of the wrong type: {', '.join(wrong)}", remedy)
    return content


def wrong_keys(content: dict[str, Any], needed: Types) -> list[str]:
    """The needed keys that are missing, or whose values are of another type."""
    return [key for key, kind in needed.items() if key not in content or not isinstance(content[key], kind)]


def read_arrays(path: Path, needed: Mapping[str, Shape], remedy: str) -> dict[str, np.ndarray]:
    """All arrays of a run's `.npz` file, which has a CRC-32 of each.

    Args:
        path: the file.
        needed: required arrays of numbers, with their shapes.
        remedy: ends the error message.

    Raises:
        Damaged: the file is missing, damaged or has other content.
    """
    try:
        with np.load(regular_file(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged file raises half a dozen kinds
        raise Damaged(path, getattr(error, "strerror", None) or error, remedy) from None
    for name, shape in needed.items():
        if name not in arrays:
            raise Damaged(path, f"it contains no {name}", remedy)
        found = arrays[name]
        fits = found.ndim == len(shape) and all(want in (None, n) for want, n in zip(shape, found.shape, strict=True))
        if not fits or found.dtype.kind not in "iuf":
            raise Damaged(path, f"{name} is {found.dtype} of shape {found.shape}", remedy)
    return arrays
