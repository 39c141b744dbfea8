"""Configs given from Python, as the plain values that YAML holds: an experiment is built from them for every fold."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fmnist_cv.errors import UserError


def plain(value: Any, key: str = "") -> Any:
    """The value with mappings as dicts, sequences as lists, paths as strings, and numbers of NumPy as Python's.

    Args:
        value: of a config.
        key: where it stands, for messages.

    Raises:
        UserError: it is, or holds, an object that a config cannot hold, such as a module or an array.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, datetime.date):  # YAML reads 2026-01-31 as one
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: plain(item, f"{key}.{name}" if key else str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{key}.{i}") for i, item in enumerate(value)]
    raise UserError(
        f"{key or 'the config'} is {_described(value)}, which a config cannot hold: each fold builds its own "
        f"parts; {_way_out(value)}"
    )


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = "a function" if callable(value) and hasattr(value, "__name__") else f"an object ({type(value).__name__})"
    return f"the array or tensor of shape {tuple(value.shape)}" if hasattr(value, "shape") else kind


def _way_out(value: Any) -> str:
    cls = value if isinstance(value, type) else type(value)
    if cls.__name__ == "ArrayDataModule" or hasattr(value, "shape"):
        return (
            "save the arrays with numpy.savez('my.npz', images=..., labels=...) and give data={'class_path': "
            "'fmnist_cv.data.ArrayDataModule', 'init_args': {'path': 'my.npz'}}"
        )
    if callable(value) and hasattr(value, "__name__"):  # a class or function
        return f"write its dotted name, '{value.__module__}.{value.__name__}'"
    return f"write {{'class_path': '{cls.__module__}.{cls.__qualname__}', 'init_args': {{...}}}}"
