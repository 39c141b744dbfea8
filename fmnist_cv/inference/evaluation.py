"""A run's networks scored on its test set, or on other images of the same classes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from rich.console import Console

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.analysis.statistics import wilson_interval
from fmnist_cv.analysis.tables import markdown, percent, report_lines
from fmnist_cv.config.options import read_config
from fmnist_cv.config.parser_messages import explain
from fmnist_cv.config.yaml_files import load_yaml
from fmnist_cv.data import Images, KFoldDataModule
from fmnist_cv.data.module import SPLIT_ARGUMENTS
from fmnist_cv.data.synthetic_images import synthetic_warning
from fmnist_cv.engine.environment import describe_environment
from fmnist_cv.engine.run_folder import RunFolder, inside, replace_file, write_json
from fmnist_cv.engine.scoring import classification_report
from fmnist_cv.engine.writable import check_writable, is_writable
from fmnist_cv.errors import UserError
from fmnist_cv.inference.choices import DataPart, ModelChoice
from fmnist_cv.inference.ensemble import Predictions, load_ensemble
from fmnist_cv.runtime import Devices
from fmnist_cv.utils.paths import user_path
from fmnist_cv.utils.user_text import for_markdown

DATA = (
    "data are an .npz file with images and labels, a YAML file with a section data, or the class path of a data module"
)
FORMAT = 1  # of evaluation.json
SAME = 1e-4  # what another order of sums may do to a float32 probability, generously


def evaluate_run(
    run: str | Path,
    data: str | Path | KFoldDataModule | None = None,
    part: DataPart | None = None,
    *,
    model: ModelChoice = "ensemble",
    out: str | Path | None = None,
    accelerator: str | None = None,
    console: Console | None = None,
) -> tuple[dict[str, Any], Path | None]:
    """Score a finished run's networks, as `python -m fmnist_cv.evaluate` does, and write evaluation.json and .md.

    Args:
        run: the run's folder.
        data: other images than the run's test set, see `read_data`; their classes are the run's or some of them.
        part: their "test" or "train" images; by default the test images where there are any.
        model: "ensemble", "best" or "refit", see `load_ensemble`.
        out: folder for the files; by default evaluations/<data>-<part> in the run's, with the model's name added.
        accelerator: where to run, by default as the run did.
        console: where progress is shown.

    Returns:
        What evaluation.json holds, and its folder; None where `out` is, and the run's folder cannot be written.

    Raises:
        UserError: run, data or model cannot be used as asked; the folder holds another evaluation.
    """
    result = CrossValidationResult.load(run)
    images, name, part = images_to_score(result, data, part)
    fingerprint = images.fingerprint()
    if fingerprint == result.summary["data"]["fingerprint"]:
        raise UserError(
            f"these are the images that run {result.path} was trained on, of which its networks know the "
            "answers; the honest scores of them are in its report.md, out of fold"
        )
    is_runs_test_set = data is None or fingerprint == result.summary["data"].get("test_fingerprint")
    what = {"data": name, "part": part, "fingerprint": fingerprint, "model": model}
    folder = None
    if out is not None or is_writable(result.path):
        folder = user_path(out, "--out") if out is not None else default_folder(result.path, name, part, model)
        _refuse_other(folder, what)
        check_writable(folder, "--out", "")

    ensemble = load_ensemble(result, model, accelerator)
    if images.shape != ensemble.image_shape:
        raise UserError(
            f"the images of {name} have the shape {images.shape}, but the run's networks take "
            f"{ensemble.image_shape} (channels, height, width)"
        )
    labels = match_labels(images, ensemble.class_names)
    predictions = ensemble.predict(images.images, console)
    reports = _reports(predictions, labels, [network.name for network in ensemble.networks])
    voted = "ensemble" if len(ensemble.networks) > 1 else ensemble.networks[0].name
    majority = int(labels.bincount().argmax())
    constant = F.one_hot(torch.full_like(labels, majority), len(ensemble.class_names)).float()

    evaluation: dict[str, Any] = {
        "format": FORMAT,
        "experiment": result.summary["experiment"],
        "run": result.summary["run"],
        **what,
        "n": len(images),
        "epoch": "last" if model == "refit" else result.summary["headline"]["epoch"],
        "scores": {key: _scores(report, SHOWN) for key, report in reports.items()},
        "baseline": {
            "always": ensemble.class_names[majority],
            **_scores(classification_report(constant, labels, ensemble.class_names), ANSWERS_ALONE),
        },
        "voted": voted,
        "report": reports[voted],
        "against_the_run": _against_the_run(result, model, predictions, labels) if is_runs_test_set else None,
        "seen_in_training": _n_seen(result, images),
        "environment": describe_environment(
            Devices(ensemble.device.type, (ensemble.device.index or 0,)).description,
            torch.get_num_threads(),
            ensemble.precision_name,
        ),
    }
    if folder is not None:
        _write(folder, evaluation)
    return evaluation, folder


# -- the images ---------------------------------------------------------------------------------------------


def images_to_score(
    result: CrossValidationResult, data: str | Path | KFoldDataModule | None, part: DataPart | None
) -> tuple[Images, str, DataPart]:
    """The images asked for, what to call them, and which part they are.

    Raises:
        UserError: there are none, or they are not as the run had them.
    """
    module = result.data if data is None else data if isinstance(data, KFoldDataModule) else read_data(data)
    test = None
    if part != "train":
        test = result.test_images if data is None else module.test_images
    if test is not None:
        return test, module.data_name, "test"
    if data is None and part is None:
        raise UserError(
            f"{module.data_name}, on which run {result.path} was made, has no test images; name others with --data"
        )
    if part == "test":
        raise UserError(f"{module.data_name} has no test images; leave out --part test")
    return module.train_images, module.data_name, "train"


def read_data(data: str | Path) -> KFoldDataModule:
    """The data module that a user names: an `.npz` file as ArrayDataModule takes it, a YAML file (or the name of one in
    configs/) whose section `data` has class_path and init_args, or a class path.

    Raises:
        UserError: there is no such thing, or its section `data` is not right.
    """
    text, path = str(data), user_path(data, "--data")
    if path.is_dir():
        raise UserError(f"{text} is a folder; {DATA}")
    if path.suffix.lower() == ".npz":
        section: Any = {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"path": str(path)}}
    elif path.is_file() or path.suffix.lower() in (".yaml", ".yml") or "." not in text:
        try:
            section = load_yaml(read_config(text)).get("data")
        except UserError as error:
            raise UserError(f"{error}; {DATA}") from None
    else:
        section = {"class_path": text}
    if not isinstance(section, dict):
        raise UserError(f"{text} has no section data with class_path and init_args")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(KFoldDataModule, "data", required=True, skip=set(SPLIT_ARGUMENTS))
    try:
        return parser.instantiate(parser.parse_object({"data": section})).data
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise UserError(explain(error, parser)) from None


def _n_seen(result: CrossValidationResult, images: Images) -> int | None:
    """How many of the images are, pixel by pixel, among the run's training images; None where these are not there."""
    try:
        train = result.data.train_images.images
    except UserError:
        return None
    seen = {image.tobytes() for image in train.cpu().numpy()}
    return sum(image.tobytes() in seen for image in images.images.cpu().numpy())


def match_labels(images: Images, class_names: tuple[str, ...]) -> torch.Tensor:
    """int64 (n,): the images' labels counted as the networks count their classes, by name.

    Raises:
        UserError: a class that the networks do not know.
    """
    if unknown := [name for name in images.class_names if name not in class_names]:
        raise UserError(
            f"the images' classes {', '.join(unknown)} are unknown to the networks, which know "
            f"{', '.join(class_names)}; name the classes (class_names in an .npz) as these are"
        )
    return torch.tensor([class_names.index(name) for name in images.class_names])[images.labels]


# -- the scores ---------------------------------------------------------------------------------------------


def _reports(predictions: Predictions, labels: torch.Tensor, names: list[str]) -> dict[str, dict[str, Any]]:
    """Each network's report and, of several, the soft vote's."""
    named = dict(zip(names, map(torch.from_numpy, predictions.probabilities), strict=True))
    if len(names) > 1:
        named["ensemble"] = torch.from_numpy(predictions.mean)
    return {name: classification_report(p, labels, predictions.class_names) for name, p in named.items()}


ANSWERS_ALONE = ("accuracy", "balanced_accuracy", "macro_f1")
SHOWN = (*ANSWERS_ALONE, "nll", "brier", "calibration_error")


def _scores(report: dict[str, Any], kept: tuple[str, ...]) -> dict[str, Any]:
    right = sum(row[i] for i, row in enumerate(report["confusion_matrix"]))
    return {key: report[key] for key in kept} | {"wilson": wilson_interval(right, report["n"])}


def _against_the_run(
    result: CrossValidationResult, model: ModelChoice, predictions: Predictions, labels: torch.Tensor
) -> dict[str, Any]:
    """How far the run's own test probabilities, written after its training, are from those of now."""
    if model == "refit":
        refit = RunFolder(result.path).refit.read_probabilities({"last_test": result.test_shape})
        then = refit["last_test"][None]
    else:
        every = result.test_probabilities()
        assert every is not None
        best = [fold.name for fold in result.folds].index(result.summary["best_fold"]["name"])
        then = every if model == "ensemble" else every[best : best + 1]
    answers, truth = (predictions.probabilities.argmax(2), then.argmax(2)), labels.numpy()
    return {
        "largest_difference_of_a_probability": float(np.abs(then - predictions.probabilities).max()),
        "other_answers": int((answers[0] != answers[1]).sum()),
        "accuracies_then": (answers[1] == truth).mean(1).tolist(),
        "accuracies_now": (answers[0] == truth).mean(1).tolist(),
        "precision": result.summary["environment"]["precision"],
        "device": result.summary["environment"]["device"],
    }


# -- what is written ----------------------------------------------------------------------------------------

SCORE_COLUMNS = ("", "accuracy", "95 % interval", "balanced accuracy", "macro F1", "NLL", "calibration error")


def score_rows(evaluation: dict[str, Any]) -> list[list[str]]:
    """Per network, for their vote, and for always the same class: accuracies in percent, and further scores."""
    baseline = evaluation["baseline"]
    rows = []
    for name, scores in [*evaluation["scores"].items(), (f"always {baseline['always']}", baseline)]:
        low, high = scores["wilson"]
        rows.append(
            [
                name,
                percent(scores["accuracy"]),
                f"{percent(low)} to {percent(high)}",
                percent(scores["balanced_accuracy"]),
                *(f"{scores[key]:.4f}" if key in scores else "" for key in ("macro_f1", "nll", "calibration_error")),
            ]
        )
    return rows


def sentences(evaluation: dict[str, Any]) -> list[str]:
    """What is to be known of the scores."""
    lines = synthetic_warning(evaluation["data"])
    if evaluation["seen_in_training"] is None:
        lines.append("Whether some of these images were trained on could not be checked: the run's own are not there.")
    elif n := evaluation["seen_in_training"]:
        lines.append(
            f"{n:,} of these {evaluation['n']:,} images are, pixel by pixel, among the run's training images, whose answers "
            "its networks know."
        )
    if own := evaluation["against_the_run"]:
        difference = own["largest_difference_of_a_probability"]
        if not own["other_answers"] and difference < SAME:
            lines.append(
                f"The run's own test scores come out again: the same answers, probabilities within {difference:.0e}."
            )
        else:
            then, now = (", ".join(map(percent, own[f"accuracies_{when}"])) for when in ("then", "now"))
            lines.append(
                f"The run's own test scores come out differently: {own['other_answers']} answers are others, "
                f"probabilities differ by up to {difference:.2g}; accuracies {now}, in results.json {then} "
                f"(there on {own['device']}, {own['precision']})."
            )
    return lines


def default_folder(run: Path, data: str, part: str, model: str) -> Path:
    """evaluations/<data>-<part> in the run's folder, with the model's name where it is not the ensemble."""
    name = "-".join([data, part, *([] if model == "ensemble" else [model])])
    return inside(run, run / "evaluations" / "".join(c if c.isalnum() or c in "._+-" else "_" for c in name))


def _refuse_other(folder: Path, what: dict[str, Any]) -> None:
    path = folder / "evaluation.json"
    if not path.exists():
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        there = {}
    if not isinstance(there, dict) or {key: there.get(key) for key in what} != what:
        raise UserError(f"{path} holds another evaluation, which is not overwritten; give another folder with --out")


def _write(folder: Path, evaluation: dict[str, Any]) -> None:
    title = f"{evaluation['experiment']} / {evaluation['run']} on {evaluation['data']}, {evaluation['part']} images"
    environment = evaluation["environment"]
    lines = [
        f"# {for_markdown(title)}",
        "",
        *(f"- {for_markdown(line)}" for line in sentences(evaluation)),
        "",
        *markdown(SCORE_COLUMNS, score_rows(evaluation)),
        "",
        f"## {evaluation['voted']}",
        "",
        *report_lines(evaluation["report"]),
        f"Epoch: {evaluation['epoch']}; {for_markdown(environment['device'])}; precision {environment['precision']}; "
        + ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
        + f"; fingerprint of the images {evaluation['fingerprint']}.",
        "",
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "evaluation.md", lambda file: file.write("\n".join(lines).encode()))
        write_json(folder / "evaluation.json", evaluation)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose another folder with --out") from None
