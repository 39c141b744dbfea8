"""A fold's loggers: TensorBoard, and those that the user configures, named after the fold."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger

from fmnist_cv.config.class_paths import load_class
from fmnist_cv.engine import tensorboard


def make_loggers(folder: Path, requested: Any) -> list[Logger]:
    """TensorBoard and the loggers that the experiment adds; none for `trainer.logger: false`.

    Args:
        folder: the fold's.
        requested: the experiment's trainer.logger, with its loggers instantiated.
    """
    if requested is False:
        return []
    added = [] if requested in (None, True) else requested if isinstance(requested, list) else [requested]
    return [tensorboard.make_logger(folder), *added]


def name_loggers(configured: Any, folder: Path) -> Any:
    """An experiment's `trainer.logger` in which loggers without a name or version get those of this fold.

    Each fold has a process of its own, where a CSVLogger would search for the next free `version_0`, and WandbLogger
    would invent a name. A logger's identifiers (`version`, `name`, `run_name`, if their default is None) become
    `<experiment>-<run>-<fold>`, so that a resumed fold continues in the same place; a given version, which would be the
    same for all folds, gets the fold's name as a suffix.

    Args:
        configured: the resolved experiment's: a logger or a list of them, each with class_path and init_args, or none.
        folder: the fold's.
    """
    if isinstance(configured, list):
        return [name_loggers(logger, folder) for logger in configured]
    if not isinstance(configured, Namespace):
        return configured
    named = configured.clone()
    given = named.get("init_args", Namespace())  # type: ignore[no-untyped-call]
    full_name = "-".join([*folder.parts[-3:-1], folder.name])
    for name, parameter in inspect.signature(load_class(named.class_path)).parameters.items():
        if name == "version" and given.get("id") is not None:  # WandbLogger's synonym
            continue
        if name in ("version", "name", "run_name") and parameter.default is None:
            if given.get(name) is None:
                given[name] = full_name
            elif name == "version":
                given[name] = f"{given[name]}-{folder.name}"
    named.init_args = given
    return named
