"""Classes, functions and data given from Python, in an experiment's settings: as what a config can hold."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmnist_cv.data.given import PICTURES, GivenData, take_data
from fmnist_cv.errors import UserError


def is_plain(section: Any) -> bool:
    """Whether a config can hold what is given as a section: a mapping (not of data sets), a word, or nothing."""
    return section is None or isinstance(section, str) or type(section) is dict


def take_objects(settings: Mapping[str, Any]) -> tuple[dict[str, Any], GivenData | None]:
    """Settings without objects.

    A class or function becomes its dotted path, a `functools.partial` also its arguments; data given as objects
    become the path of a file that is yet to be written.

    Args:
        settings: sections, or values of dotted keys.

    Returns:
        The settings, and the data where these were objects.

    Raises:
        UserError: a model that no other process could import, or data that cannot be used.
    """
    taken = dict(settings)
    if "model" in taken:
        taken["model"] = _model(taken["model"])
    pictures = {key: taken[f"data.{key}"] for key in PICTURES if f"data.{key}" in taken}
    if isinstance(taken.get("data"), type) or inspect.isfunction(taken.get("data")):
        taken["data"] = _path_of(taken["data"], "data")
    given = take_data(taken.get("data"), pictures)
    if given is None:
        return taken, None
    for key in pictures:
        del taken[f"data.{key}"]
    taken["data"] = {"path": f"{given.kind}.npz", **given.settings}
    return taken, given


def _model(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {**value, "class_path": _model(value["class_path"])} if "class_path" in value else value
    if isinstance(value, functools.partial):
        if value.args:
            raise UserError("model is a functools.partial with arguments without names; give them with their names")
        return {"class_path": _path_of(value.func, "model"), "init_args": dict(value.keywords)}
    is_maker = isinstance(value, type) or inspect.isfunction(value)
    return _path_of(value, "model") if is_maker else value


def _path_of(maker: Any, section: str) -> str:
    """The dotted path of a class or function.

    Raises:
        UserError: it cannot be found under its name.
    """
    name = maker.__qualname__
    found = functools.reduce(
        lambda place, part: getattr(place, part, None), name.split("."), sys.modules.get(maker.__module__)
    )
    if found is not maker or "." in name:
        kind = (
            "a lambda"
            if name.endswith("<lambda>")
            else f"{'the class' if isinstance(maker, type) else 'the function'} {name}"
        )
        raise UserError(
            f"{section} is {kind}, which other processes cannot find by its name; define it with def or class at the top level of a "
            "module or script"
        )
    return f"{_module_of(maker)}.{name}"


def _module_of(maker: Any) -> str:
    """The module; of the script that runs, where it can be imported from the working folder, the name that later commands know."""
    main = sys.modules["__main__"]
    if maker.__module__ != "__main__":
        return str(maker.__module__)
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if spec is not None:  # python -m
        name = spec.name
    elif file is not None and Path(file).stem.isidentifier() and Path(file).resolve().parent == Path.cwd():
        name = Path(file).stem
    else:
        return "__main__"
    # so that this process does not run the script again
    return name if sys.modules.setdefault(name, main) is main else "__main__"
