"""Images that a user names for an evaluation or a check: the run's own, or others of the same classes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.config.class_paths import parameters
from fmnist_cv.config.jsonargparse_internals.messages import explain
from fmnist_cv.config.options import as_arguments, parse, read_config
from fmnist_cv.config.sections import DATA_WAYS
from fmnist_cv.config.short_sections import SOURCES, full_data
from fmnist_cv.config.yaml_files import load_yaml
from fmnist_cv.data import Images, KFoldDataModule
from fmnist_cv.data.given import PICTURES
from fmnist_cv.data.module import SPLIT_ARGUMENTS
from fmnist_cv.errors import UserError
from fmnist_cv.inference.choices import DataPart
from fmnist_cv.utils.paths import user_path

WAYS = f"{DATA_WAYS}, or a YAML file with a section data"


def select_images(
    result: CrossValidationResult,
    data: str | Path | KFoldDataModule | None,
    part: DataPart | None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Images, str, DataPart]:
    """The images to score, their data set's name, and which part of it they are.

    Args:
        result: the run.
        data: other data than the run's, see `read_data`.
        part: "test" or "train"; by default the test images where there are any.
        settings: see `read_data`.

    Raises:
        UserError: there are no such images, or the run's have changed.
    """
    module = result.data if data is None else read_data(data, result, settings)
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


def read_data(
    data: str | Path | KFoldDataModule, run: CrossValidationResult, settings: Mapping[str, Any] | None = None
) -> KFoldDataModule:
    """The data module that a user names.

    Args:
        data: what `fit` takes as `--data`: a folder, a table of files, an `.npz`, or a class path; a YAML file (or the name of one in
            configs/) with a section `data`; or a data module, which is returned.
        run: image files are decoded and resized as its are, or brought to its images' size, unless the data say otherwise.
        settings: arguments of the data's class, e.g. {"label": "diagnosis"}.

    Raises:
        UserError: there is no such file or class, or the arguments do not fit it.
    """
    if isinstance(data, KFoldDataModule):
        return data
    section = _section(str(data))
    init_args = {**_form(run, str(section.get("class_path"))), **(section.get("init_args") or {})}
    parser = ArgumentParser(prog="python -m fmnist_cv.evaluate", exit_on_error=False, allow_abbrev=False)
    parser.add_subclass_arguments(KFoldDataModule, "data", required=True, skip=set(SPLIT_ARGUMENTS))
    given = {"data": section | {"init_args": init_args}, **{f"data.{key}": v for key, v in (settings or {}).items()}}
    try:
        module: KFoldDataModule = parser.instantiate(parse(parser, as_arguments(given))).data
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise UserError(explain(error, parser)) from None
    return module


def _section(given: str) -> dict[str, Any]:
    """The section `data` of a path or class path, or in a config."""
    path = user_path(given, "--data")
    is_file = path.exists() and not path.is_dir() and path.suffix.lower() not in SOURCES
    is_name = not path.exists() and not set("./\\") & set(given)
    content: Any = given
    if is_file or is_name or path.suffix.lower() in (".yaml", ".yml"):
        try:
            content = load_yaml(read_config(given)).get("data")
        except UserError as error:
            raise UserError(f"{error}; {WAYS}") from None
    section = full_data(content) or content
    if isinstance(section, str):
        return {"class_path": section}
    if not isinstance(section, dict):
        raise UserError(f"{given} has no section data with class_path and init_args")
    return section


def _form(run: CrossValidationResult, class_path: str) -> dict[str, Any]:
    """Arguments of a class that decodes pictures, for pixels such as the run's."""
    if not {*PICTURES} <= parameters(class_path).keys():
        return {}
    channels, *size = run.summary["data"]["image_shape"]
    own = run.experiment.config.data.get("init_args") or {}
    form = {"image_size": size, "resize": own.get("resize", "squeeze")}
    return form | {"channels": channels} if channels in (1, 3) else form


def match_labels(images: Images, class_names: tuple[str, ...]) -> torch.Tensor:
    """int64 (n,): the images' labels as indices into `class_names`, matched by name.

    Raises:
        UserError: a class that is not among them.
    """
    if unknown := [name for name in images.class_names if name not in class_names]:
        raise UserError(
            f"the images have the classes {', '.join(unknown)}, which the models do not know; they know "
            f"{', '.join(class_names)}; rename the classes (folders, labels, or class_names in an .npz) to match"
        )
    return torch.tensor([class_names.index(name) for name in images.class_names])[images.labels]
