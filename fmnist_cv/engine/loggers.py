"""A fold's loggers: TensorBoard, and those that a user adds, which are told which fold they log."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import Logger

from fmnist_cv.config.class_paths import load_class
from fmnist_cv.engine import tensorboard


def make_loggers(folder: Path, asked: Any) -> list[Logger]:
    """TensorBoard and those that the experiment adds; none for `trainer.logger: false`.

    Args:
        folder: the fold's.
        asked: the experiment's trainer.logger, its loggers made.
    """
    if asked is False:
        return []
    added = [] if asked in (None, True) else asked if isinstance(asked, list) else [asked]
    return [tensorboard.make_logger(folder), *added]


def name_loggers(config: str, folder: Path) -> str:
    """An experiment's YAML in which loggers that leave it open are told to log this fold of this run.

    Each fold has a process of its own, where a CSVLogger would look for the next free `version_0`, and WandbLogger would
    invent a name. What a logger is called by (`version`, `name`, `run_name`, where their default is None) becomes
    `<experiment>-<run>-<fold>`, so that a resumed fold goes on in the same place; a version that is given, and would be
    the same for all folds, gets the fold's name at its end.

    Args:
        config: the resolved experiment.
        folder: the fold's.
    """
    settings = yaml.safe_load(config)
    asked = settings["trainer"].get("logger")
    loggers = [logger for logger in (asked if isinstance(asked, list) else [asked]) if isinstance(logger, dict)]
    if not loggers:
        return config
    whole = "-".join([*folder.parts[-3:-1], folder.name])
    for logger in loggers:
        given = logger.setdefault("init_args", {})
        for name, parameter in inspect.signature(load_class(logger["class_path"])).parameters.items():
            if name == "version" and given.get("id") is not None:  # WandbLogger's other name for it
                continue
            if name in ("version", "name", "run_name") and parameter.default is None:
                if given.get(name) is None:
                    given[name] = whole
                elif name == "version":
                    given[name] = f"{given[name]}-{folder.name}"
    return yaml.safe_dump(settings, sort_keys=False)
