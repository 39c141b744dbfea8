"""A run's models scored on its test set, or on other images of the same classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.analysis.statistics import wilson_interval
from fmnist_cv.data import Images, KFoldDataModule
from fmnist_cv.engine.environment import describe_environment
from fmnist_cv.engine.run_folder import RunFolder, inside
from fmnist_cv.engine.scoring import ClassificationReport, classification_report
from fmnist_cv.engine.writable import check_writable, is_writable
from fmnist_cv.errors import UserError
from fmnist_cv.inference.choices import DataPart, ModelChoice
from fmnist_cv.inference.ensemble import Predictions, load_ensemble
from fmnist_cv.inference.evaluation_file import (
    FORMAT,
    Baseline,
    Evaluation,
    ModelScores,
    Reproduction,
    write_evaluation,
)
from fmnist_cv.inference.named_data import match_labels, select_images
from fmnist_cv.runtime import Devices
from fmnist_cv.utils.paths import user_path


class _Identity(TypedDict):
    """What distinguishes evaluations of one run."""

    data: str
    part: DataPart
    fingerprint: str
    model: ModelChoice


def evaluate_run(
    run: str | Path,
    data: str | Path | KFoldDataModule | None = None,
    part: DataPart | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    model: ModelChoice = "ensemble",
    out: str | Path | None = None,
    accelerator: str | None = None,
    console: Console | None = None,
) -> tuple[Evaluation, Path | None]:
    """Score a finished run's models, as `python -m fmnist_cv.evaluate` does, and write evaluation.json and .md.

    Args:
        run: the run's folder.
        data: other images than the run's test set, see `named_data.read_data`; their classes are the run's or some of them.
        part: their "test" or "train" images; by default the test images where there are any.
        settings: arguments of the data's class, e.g. {"label": "diagnosis"}.
        model: "ensemble", "best" or "refit", see `load_ensemble`.
        out: folder for the files; by default evaluations/<data>-<part> in the run's, with the model's name appended.
        accelerator: by default the run's.
        console: where progress is shown.

    Returns:
        The content of evaluation.json, and its folder; None if `out` is None and the run's folder is not writable.

    Raises:
        UserError: run, data or model cannot be used, or the folder holds another evaluation.
    """
    result = CrossValidationResult.load(run)
    images, name, part = select_images(result, data, part, settings)
    fingerprint, trained_on = images.fingerprint(), result.summary["data"]
    of_pixels = fingerprint if images.weights is None else replace(images, weights=None).fingerprint()
    if of_pixels == trained_on.get("unweighted_fingerprint", trained_on["fingerprint"]):
        raise UserError(
            f"these are the images that run {result.path} was trained on, so that their scores would be optimistically "
            "biased; the unbiased out-of-fold scores are in its report.md"
        )
    identity: _Identity = {"data": name, "part": part, "fingerprint": fingerprint, "model": model}
    folder = _output_folder(result, identity, out)
    ensemble = load_ensemble(result, model, accelerator)
    if images.shape != ensemble.image_shape:
        raise UserError(
            f"the images of {name} have the shape {images.shape}, but the run's models take {ensemble.image_shape} "
            "(channels, height, width)"
        )
    labels = match_labels(images, ensemble.class_names)
    predictions = ensemble.predict(images, console)
    reports = _reports(predictions, labels, [network.name for network in ensemble.networks])
    voted = "ensemble" if len(ensemble.networks) > 1 else ensemble.networks[0].name
    is_runs_test_set = data is None or fingerprint == result.summary["data"]["test_fingerprint"]
    evaluation: Evaluation = {
        "format": FORMAT,
        "experiment": result.summary["experiment"],
        "run": result.summary["run"],
        **identity,
        "n": len(images),
        "epoch": "last" if model == "refit" else result.summary["headline"]["epoch"],
        "scores": {key: _scores(report) for key, report in reports.items()},
        "baseline": _baseline(labels, ensemble.class_names),
        "voted": voted,
        "report": reports[voted],
        "against_the_run": _reproduction(result, model, predictions, labels) if is_runs_test_set else None,
        "seen_in_training": _n_seen(result, images),
        "environment": describe_environment(
            Devices(ensemble.device.type, (ensemble.device.index or 0,)).description,
            torch.get_num_threads(),
            ensemble.precision_name,
        ),
    }
    if folder is not None:
        write_evaluation(folder, evaluation)
    return evaluation, folder


# -- the scores ---------------------------------------------------------------------------------------------


def _reports(predictions: Predictions, labels: torch.Tensor, names: list[str]) -> dict[str, ClassificationReport]:
    """Each model's report and, for several, the soft-voting ensemble's."""
    named = dict(zip(names, map(torch.from_numpy, predictions.probabilities), strict=True))
    if len(names) > 1:
        named["ensemble"] = torch.from_numpy(predictions.mean)
    return {name: classification_report(p, labels, predictions.class_names) for name, p in named.items()}


def _scores(report: ClassificationReport) -> ModelScores:
    return {
        "accuracy": report["accuracy"],
        "balanced_accuracy": report["balanced_accuracy"],
        "macro_f1": report["macro_f1"],
        "nll": report["nll"],
        "brier": report["brier"],
        "calibration_error": report["calibration_error"],
        "wilson": _wilson(report),
    }


def _baseline(labels: torch.Tensor, class_names: tuple[str, ...]) -> Baseline:
    """Always the most frequent class, which has no probabilities to score."""
    majority = int(labels.bincount().argmax())
    constant = F.one_hot(torch.full_like(labels, majority), len(class_names)).float()
    report = classification_report(constant, labels, class_names)
    return {
        "always": class_names[majority],
        "accuracy": report["accuracy"],
        "balanced_accuracy": report["balanced_accuracy"],
        "macro_f1": report["macro_f1"],
        "wilson": _wilson(report),
    }


def _wilson(report: ClassificationReport) -> tuple[float, float]:
    correct = sum(row[i] for i, row in enumerate(report["confusion_matrix"]))
    return wilson_interval(correct, report["n"])


def _reproduction(
    result: CrossValidationResult, model: ModelChoice, predictions: Predictions, labels: torch.Tensor
) -> Reproduction:
    """The run's own test probabilities, stored after its training, against the present ones."""
    if model == "refit":
        refit = RunFolder(result.path).refit.read_probabilities({"last_test": result.test_shape})
        then = refit["last_test"][None]
    else:
        of_folds = result.test_probabilities()
        assert of_folds is not None
        best = [fold.name for fold in result.folds].index(result.summary["best_fold"]["name"])
        then = of_folds if model == "ensemble" else of_folds[best : best + 1]
    predicted_now, predicted_then, truth = predictions.probabilities.argmax(2), then.argmax(2), labels.numpy()
    return {
        "largest_difference_of_a_probability": float(np.abs(then - predictions.probabilities).max()),
        "other_answers": int((predicted_now != predicted_then).sum()),
        "accuracies_then": (predicted_then == truth).mean(1).tolist(),
        "accuracies_now": (predicted_now == truth).mean(1).tolist(),
        "precision": result.summary["environment"]["precision"],
        "device": result.summary["environment"]["device"],
    }


def _n_seen(result: CrossValidationResult, images: Images) -> int | None:
    """How many of the images are equal to a training image of the run; None where these are missing."""
    try:
        train = result.data.train_images
    except UserError:
        return None
    seen = set(train.pixel_digests())
    return sum(digest in seen for digest in images.pixel_digests())


# -- the folder ---------------------------------------------------------------------------------------------


def _output_folder(result: CrossValidationResult, identity: _Identity, out: str | Path | None) -> Path | None:
    """Where the files go; None if `out` is None and the run's folder is not writable.

    Raises:
        UserError: the folder holds another evaluation, or is not writable.
    """
    if out is None and not is_writable(result.path):
        return None
    if out is not None:
        folder = user_path(out, "--out")
    else:
        folder = default_folder(result.path, identity["data"], identity["part"], identity["model"])
    _refuse_other(folder / "evaluation.json", identity)
    check_writable(folder, "--out", "")
    return folder


def default_folder(run: Path, data: str, part: str, model: str) -> Path:
    """evaluations/<data>-<part> in the run's folder, with the model's name appended unless it is the ensemble."""
    name = "-".join([data, part, *([] if model == "ensemble" else [model])])
    return inside(run, run / "evaluations" / "".join(c if c.isalnum() or c in "._+-" else "_" for c in name))


def _refuse_other(path: Path, identity: _Identity) -> None:
    if not path.exists():
        return
    try:
        existing = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        existing = {}
    if not isinstance(existing, dict) or {key: existing.get(key) for key in identity} != identity:
        raise UserError(f"{path} holds another evaluation and is not overwritten; give another folder with --out")
