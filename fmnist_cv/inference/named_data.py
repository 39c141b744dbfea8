"""Images that a user names for an evaluation or a check: the run's own, or others of the same classes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.config.jsonargparse_internals.messages import explain
from fmnist_cv.config.options import read_config
from fmnist_cv.config.yaml_files import load_yaml
from fmnist_cv.data import Images, KFoldDataModule
from fmnist_cv.data.module import SPLIT_ARGUMENTS
from fmnist_cv.errors import UserError
from fmnist_cv.inference.choices import DataPart
from fmnist_cv.utils.paths import user_path

KINDS = "data must be an .npz file with images and labels, a YAML file with a section data, or the class path of a data module"


def select_images(
    result: CrossValidationResult, data: str | Path | KFoldDataModule | None, part: DataPart | None
) -> tuple[Images, str, DataPart]:
    """The images to score, their data set's name, and which part of it they are.

    Args:
        result: the run.
        data: other data than the run's, see `read_data`.
        part: "test" or "train"; by default the test images where there are any.

    Raises:
        UserError: there are no such images, or the run's have changed.
    """
    module = result.data if data is None else data if isinstance(data, KFoldDataModule) else read_data(data)
    test = None
    if part != "train":
        test = result.test_images if data is None else module.test_images
    if test is not None:
        return test, module.data_name, "test"
    if data is None and part is None:
        raise UserError(
            f"{module.data_name}, the data of run {result.path}, has no test images; name others with --data"
        )
    if part == "test":
        raise UserError(f"{module.data_name} has no test images; leave out --part test")
    return module.train_images, module.data_name, "train"


def read_data(data: str | Path) -> KFoldDataModule:
    """The data module that a user names.

    Args:
        data: an `.npz` file as ArrayDataModule reads it, a YAML file (or the name of one in configs/) whose section `data`
            has class_path and init_args, or a class path.

    Raises:
        UserError: there is no such file or class, or its section `data` is invalid.
    """
    text, path = str(data), user_path(data, "--data")
    if path.is_dir():
        raise UserError(f"{text} is a folder; {KINDS}")
    if path.suffix.lower() == ".npz":
        section: Any = {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"path": str(path)}}
    elif path.is_file() or path.suffix.lower() in (".yaml", ".yml") or "." not in text:
        try:
            section = load_yaml(read_config(text)).get("data")
        except UserError as error:
            raise UserError(f"{error}; {KINDS}") from None
    else:
        section = {"class_path": text}
    if not isinstance(section, dict):
        raise UserError(f"{text} has no section data with class_path and init_args")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(KFoldDataModule, "data", required=True, skip=set(SPLIT_ARGUMENTS))
    try:
        module: KFoldDataModule = parser.instantiate(parser.parse_object({"data": section})).data
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise UserError(explain(error, parser)) from None
    return module


def match_labels(images: Images, class_names: tuple[str, ...]) -> torch.Tensor:
    """int64 (n,): the images' labels as indices into `class_names`, matched by name.

    Raises:
        UserError: a class that is not among them.
    """
    if unknown := [name for name in images.class_names if name not in class_names]:
        raise UserError(
            f"the images have the classes {', '.join(unknown)}, which the models do not know; they know "
            f"{', '.join(class_names)}; rename the classes (class_names in an .npz) to match"
        )
    return torch.tensor([class_names.index(name) for name in images.class_names])[images.labels]
