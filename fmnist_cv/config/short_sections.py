"""Sections `data` and `model` given as a path, or as a class or function: which data module and network they stand for."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import lightning as L
from torch import nn

from fmnist_cv.config.class_paths import load_class, made_by, parameters
from fmnist_cv.config.sections import DATA_WAYS, MODEL_WAYS
from fmnist_cv.data import KFoldDataModule
from fmnist_cv.errors import UserError
from fmnist_cv.utils.paths import user_path

WRAPPED = "fmnist_cv.models.WrappedNetwork"
VIEWS = "fmnist_cv.data.DatasetViewsDataModule"
FOLDER, ARRAYS = ("fmnist_cv.data.ImageFolderDataModule", "root"), ("fmnist_cv.data.ArrayDataModule", "path")
MANIFEST = ("fmnist_cv.data.ManifestDataModule", "path")
SOURCES = {".csv": MANIFEST, ".tsv": MANIFEST, ".parquet": MANIFEST, ".npz": ARRAYS}
SECTION_FILES = (".yaml", ".yml", ".json")  # from which the parser reads a section
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def full_data(given: Any) -> dict[str, Any] | None:
    """The section `data` of a path, a function, or a mapping with a path and no class; None where it is written out already."""
    if isinstance(given, str):
        source = _source(given) or _views(given)
        return None if source is None else {"class_path": source[0], "init_args": {source[1]: given}}
    if not isinstance(given, dict) or "class_path" in given or not isinstance(path := given.get("path"), str):
        return None
    if (source := _source(path)) is None:
        raise UserError(f"data.path is '{path}', which cannot be used; {DATA_WAYS}")
    rest = {key: value for key, value in given.items() if key != "path"}
    return {"class_path": source[0], "init_args": {source[1]: path, **rest}}


def _source(given: str) -> tuple[str, str] | None:
    """The data module for a path and its argument; None for what is no path.

    Raises:
        UserError: a path of nothing that can be read.
    """
    ending = Path(given).suffix.lower()
    if not given or "\n" in given or given.startswith("{") or ending in SECTION_FILES:
        return None
    if ending in SOURCES:
        return SOURCES[ending]
    if not re.search(r"[/\\]|^[.~]", given) and "." in given and not Path(given).exists():
        return None  # the path of a class
    path = user_path(given, "data")
    if path.is_dir():
        return FOLDER
    if path.is_file():
        raise UserError(f"data is '{given}', a file that is none of {', '.join(SOURCES)}; {DATA_WAYS}")
    if not path.exists() and re.search(r"[/\\]|^[.~]", given):
        raise UserError(f"data is '{given}', but there is no such folder or file; {DATA_WAYS}")
    return None


def _views(given: str) -> tuple[str, str] | None:
    """The data module for a function that makes data sets and its argument; None for another class path."""
    try:
        found = load_class(given) if _DOTTED.fullmatch(given) else None
        if not inspect.isfunction(found) or issubclass(made_by(given) or object, KFoldDataModule):
            return None
    except Exception:  # the parser says what is wrong, with suggestions
        return None
    return VIEWS, "views"


def full_model(given: Any) -> dict[str, Any] | None:
    """The section `model` of a class or function that makes a network; None for a LightningModule or what is unknown."""
    path: str
    init_args: Any = {}
    if isinstance(given, str):
        path = given
    elif isinstance(given, dict) and isinstance(given.get("class_path"), str):
        path, init_args = given["class_path"], given.get("init_args") or {}
    else:
        return None
    if not _DOTTED.fullmatch(path) or not isinstance(init_args, dict):
        return None
    if not _makes_network(path):
        return None
    own = {*parameters(WRAPPED)} - {"kwargs"}
    arguments = {key: value for key, value in init_args.items() if key not in own}
    rest = {key: value for key, value in init_args.items() if key in own}
    return {
        "class_path": WRAPPED,
        "init_args": {"network": path, **({"arguments": arguments} if arguments else {}), **rest},
    }


def _makes_network(path: str) -> bool:
    """Whether a dotted path names a class or function that makes a network and is not a LightningModule's.

    Raises:
        UserError: it names something that makes none.
    """
    try:
        found = load_class(path)
    except Exception:  # the parser says what is wrong, with suggestions
        return False
    if isinstance(found, type):
        if issubclass(found, L.LightningModule):
            return False
        if issubclass(found, nn.Module):
            return True
        raise UserError(f"model is '{path}', a class that is no nn.Module; {MODEL_WAYS}")
    if inspect.ismodule(found) or not callable(found):
        kind = "a module" if inspect.ismodule(found) else f"an object of type {type(found).__name__}"
        raise UserError(f"model is '{path}', {kind}; {MODEL_WAYS}")
    returned = made_by(path)
    if returned is not None and not issubclass(returned, nn.Module):
        raise UserError(f"model is '{path}', a function that returns {returned.__name__}; {MODEL_WAYS}")
    return returned is None or not issubclass(returned, L.LightningModule)


def label(section: Any) -> str:
    """What a section's part is called in the name of the experiment."""
    if isinstance(section, dict):
        init_args = section.get("init_args") or {}
        section = next(
            (init_args[key] for key in ("root", "path", "views", "network") if init_args.get(key)),
            section["class_path"],
        )
    is_path = Path(section).suffix.lower() in SOURCES or re.search(r"[/\\]", section) or Path(section).is_dir()
    last = Path(section).resolve().stem if is_path else str(section).rpartition(".")[2].removesuffix("DataModule")
    return re.sub(r"[^\w.+-]", "_", last).lstrip(".+-") or "data"
