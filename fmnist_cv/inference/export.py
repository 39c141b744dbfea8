"""Export of a finished run: the models, the folder, and metadata about their origin and accuracy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import yaml
from rich.console import Console

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.config.class_paths import load_class
from fmnist_cv.data import Images, KFoldDataModule
from fmnist_cv.data.pixel_kinds import noise
from fmnist_cv.engine.run_folder import inside
from fmnist_cv.engine.writable import check_writable
from fmnist_cv.errors import UserError
from fmnist_cv.inference import safetensors_export
from fmnist_cv.inference.choices import ExportFormat, ModelChoice
from fmnist_cv.inference.ensemble import Ensemble, load_ensemble
from fmnist_cv.inference.named_data import read_data
from fmnist_cv.inference.onnx_export import export_onnx
from fmnist_cv.inference.safetensors_export import OWN, export_safetensors, load_exported
from fmnist_cv.utils.paths import user_path

FILES = {"onnx": ("model.onnx",), "safetensors": (safetensors_export.WEIGHTS, safetensors_export.DESCRIPTION)}


def export_run(
    run: str | Path,
    form: ExportFormat,
    model: ModelChoice = "ensemble",
    out: str | Path | None = None,
    *,
    check_on: str | Path | KFoldDataModule | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> tuple[list[Path], list[str]]:
    """Export a finished run's models in float32, as `python -m fmnist_cv.export` does.

    Args:
        run: the run's folder.
        form: "onnx" or "safetensors".
        model: "ensemble", "best" or "refit", see `load_ensemble`.
        out: folder for the files; by default exports/<model> in the run's.
        check_on: images to check the ONNX file on, see `named_data.read_data`; by default the run's test images or,
            without any, its training images.
        overwrite: replace existing files.
        console: where progress is shown.

    Returns:
        The files, and the result of the check in sentences.

    Raises:
        UserError: run or model cannot be used, files exist, or the export failed its check.
    """
    if form not in get_args(ExportFormat):
        raise UserError(f"format is '{form}'; it is one of {', '.join(get_args(ExportFormat))}")
    if check_on is not None and form != "onnx":
        raise UserError("check_on is for ONNX; safetensors are read back and compared without images")
    result = CrossValidationResult.load(run)
    folder = user_path(out, "--out") if out is not None else inside(result.path, result.path / "exports" / model)
    files = [folder / name for name in FILES[form]]
    if not overwrite and (existing := [str(file) for file in files if file.exists()]):
        raise UserError(f"existing files: {', '.join(existing)}; give another --out, or --overwrite")
    check_writable(folder, "--out", "")
    ensemble = load_ensemble(result, model, accelerator="cpu", precision="32-true")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if form == "onnx":
            findings = _onnx(result, ensemble, files[0], _images(result, check_on), console)
        else:
            findings = _safetensors(result, ensemble, folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose another folder with --out") from None
    return files, findings


def _onnx(
    result: CrossValidationResult, ensemble: Ensemble, path: Path, images: Images, console: Console | None
) -> list[str]:
    notes = {key: v if isinstance(v, str) else json.dumps(v) for key, v in _notes(result, ensemble).items()}
    found = export_onnx(ensemble, path, images, notes, console)
    ties = (
        f", except {found['ties']} ties, whose two most probable classes differ by less than 1e-5"
        if found["ties"]
        else ""
    )
    return [
        f"onnxruntime gives the same predictions for {found['images']:,} images{ties}; probabilities differ by up to "
        f"{found['largest_difference']:.0e}"
    ]


def _safetensors(result: CrossValidationResult, ensemble: Ensemble, folder: Path) -> list[str]:
    section = yaml.safe_load(result.experiment.to_yaml())["model"]
    class_path, init_args = _public_path(section["class_path"]), section.get("init_args") or {}
    objects = export_safetensors(ensemble, folder, class_path, init_args, _notes(result, ensemble))
    own = class_path in OWN
    try:
        read = load_exported(folder, None if own else load_class(class_path))
    except UserError as error:
        if own:
            raise
        lacks = f"does not hold {', '.join(objects)}, objects themselves" if objects else f"is not enough: {error}"
        return [
            f"network.json {lacks}; pass load_exported a function that makes the network from the other init_args: "
            "load_exported(FOLDER, network=...)"
        ]
    n = 64
    made_up = Images(
        noise(n, ensemble.image_shape, ensemble.dtype, seed=1), torch.zeros(n, dtype=torch.int64), ensemble.class_names
    )
    if not np.allclose(read.predict(made_up).probabilities, ensemble.predict(made_up).probabilities, atol=1e-6):
        raise UserError(f"the models read back from {folder} predict otherwise than those of the run")
    found = ["The models read back from the files give the same probabilities."]
    if not own:
        found.append(f"To load them, name the class: load_exported(FOLDER, network={class_path.rpartition('.')[2]})")
    return found


def _public_path(class_path: str) -> str:
    """The public path of a class of this package, whichever module defines it."""
    public = f"fmnist_cv.models.{class_path.rpartition('.')[2]}"
    return public if class_path.startswith("fmnist_cv.") and public in OWN else class_path


def _notes(result: CrossValidationResult, ensemble: Ensemble) -> dict[str, Any]:
    """Origin and accuracy of the models."""
    summary = result.summary
    validation = dict(zip([fold.name for fold in result.folds], result.accuracies.tolist(), strict=True))
    names: Sequence[str] = [network.name for network in ensemble.networks]
    accuracy: dict[str, Any] = {"validation": {name: validation[name] for name in names if name in validation}}
    test = result.test_accuracies
    if test is not None and summary["ensemble"] is not None:
        if len(names) > 1:
            accuracy["test"] = summary["ensemble"][summary["headline"]["epoch"]]["accuracy"]
        elif summary["refit"] is not None and names[0] == "refit":
            accuracy["test"] = summary["refit"]["test_accuracy"]
        else:
            accuracy["test"] = float(test[list(validation).index(names[0])])
    return {
        "experiment": summary["experiment"],
        "run": summary["run"],
        "data": summary["data"]["name"],
        "accuracy": accuracy,
        "fmnist_cv": version("fmnist_cv"),
    }


def _images(result: CrossValidationResult, check_on: str | Path | KFoldDataModule | None) -> Images:
    if check_on is None:
        test = result.test_images
        return result.data.train_images if test is None else test
    module = read_data(check_on, result)
    test = module.test_images
    return module.train_images if test is None else test
