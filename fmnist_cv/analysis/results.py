"""From finished folds to results: out-of-fold predictions, summary statistics, reports, and the tables to read."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from rich.console import Console

from fmnist_cv.analysis.finished_run import BOUNDS, EPOCHS, FORMAT
from fmnist_cv.analysis.statistics import summarise, wilson_interval
from fmnist_cv.analysis.tables import report_tables
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.data import Images, Split
from fmnist_cv.engine.best_effort import best_effort, warn_on
from fmnist_cv.engine.checked_files import Shape
from fmnist_cv.engine.run_folder import FoldFolder, RunFolder, replace_file, write_arrays, write_json
from fmnist_cv.engine.scoring import classification_report
from fmnist_cv.errors import UserError


def write_results(
    run: RunFolder,
    experiment: Experiment,
    splits: list[Split],
    train: Images,
    test: Images | None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Gather the finished folds into `out_of_fold.npz`, `results.json` and `report.md`.

    What only adorns the results (the link to the best checkpoint, the report) is made after them, and an error in it is
    told.

    Args:
        run: the run; all its folds are finished.
        experiment: what ran.
        splits: the run's splits.
        train, test: the images, for their labels.
        console: where it is told what could not be made; None makes it a warning.

    Returns:
        What results.json holds.
    """
    folders = [run.fold(s.repeat, s.fold, experiment.plan.n_repeats) for s in splits]
    folds = [folder.read_metrics() for folder in folders]
    n_test = None if test is None else len(test)
    probabilities = [
        folder.read_probabilities(_shapes(split, len(train.class_names), n_test))
        for folder, split in zip(folders, splits, strict=True)
    ]
    info = run.read_run_info()

    out_of_fold = _out_of_fold(experiment, splits, probabilities, len(train), len(train.class_names))
    labels = {"labels": train} if test is None else {"labels": train, "test_labels": test}
    write_arrays(run.out_of_fold, out_of_fold | {name: images.labels.cpu().numpy() for name, images in labels.items()})

    headline = experiment.headline
    ratio = float(np.mean([fold["n_validation"] / fold["n_train"] for fold in folds]))
    accuracies = [fold[headline]["validation"]["accuracy"] for fold in folds]
    best = int(np.argmax(accuracies))
    checkpoint = folders[best].last_checkpoint if headline == "last" else folders[best].best_checkpoint
    gaps = [fold["best"]["validation"]["accuracy"] - fold["last"]["validation"]["accuracy"] for fold in folds]

    results: dict[str, Any] = {
        "format": FORMAT,
        "experiment": experiment.name,
        "run": run.name,
        "data": info["data"],
        "seed": experiment.seed,
        "cv": {
            "n_splits": experiment.plan.folds_per_repeat,
            "n_repeats": experiment.plan.n_repeats,
            "stratify": experiment.plan.stratify,
            "holdout": experiment.plan.holdout,
            "inner_holdout": experiment.plan.inner_holdout,
            "train_size": experiment.plan.train_size,
        },
        "headline": {
            "epoch": headline,
            "accuracy": summarise(accuracies, ratio).as_dict(),
            "wilson": [
                wilson_interval(round(a * f["n_validation"]), f["n_validation"])
                for a, f in zip(accuracies, folds, strict=True)
            ],
            "caveat": _caveat(experiment, folds),
        },
        "untrained_classes": {
            folder.name: absent
            for folder, split in zip(folders, splits, strict=True)
            if (absent := _absent_classes(train, split))
        },
        "validation": {
            epoch: {
                name: summarise([fold[epoch]["validation"][name] for fold in folds], ratio, bounds=bounds).as_dict()
                for name, bounds in BOUNDS.items()
            }
            for epoch in EPOCHS
        },
        "test": None if test is None else {epoch: _test_scores(folds, epoch, len(test)) for epoch in EPOCHS},
        "ensemble": None if test is None else {e: _ensemble(probabilities, e, test) for e in EPOCHS},
        "optimism": {"accuracy": float(np.mean(gaps)), "per_fold": gaps, "what": _optimism_note(experiment)},
        "best_fold": {
            "name": folders[best].name,
            "validation_accuracy": accuracies[best],
            "checkpoint": checkpoint.relative_to(run.path).as_posix(),
        },
        "folds": [
            {"name": folder.name, **{key: value for key, value in fold.items() if key not in ("history", "times")}}
            for folder, fold in zip(folders, folds, strict=True)
        ],
        "out_of_fold_report": _out_of_fold_report(out_of_fold[headline], train),
        "test_report": None if test is None else _ensemble_report(probabilities, headline, test),
        "refit": _refit(run.refit, test),
        # folds may have been run on several machines
        "environment": info["environment"]
        | {"device": " + ".join(dict.fromkeys(fold.get("device", info["environment"]["device"]) for fold in folds))},
        "times": _times(folds),
    }
    write_json(run.results, results, with_digest=True)
    warn = warn_on(console)
    with best_effort(f"{run.best_checkpoint}, a link to the best fold's checkpoint,", warn):
        run.link_best(checkpoint)
    with best_effort(str(run.markdown_report), warn):
        text = report_tables(results)
        replace_file(run.markdown_report, lambda file: file.write(text.encode()))
    return results


def _shapes(split: Split, n_classes: int, n_test: int | None) -> dict[str, Shape]:
    """The arrays in a fold's probabilities.npz."""
    sizes = {"validation": len(split.validation)} | ({} if n_test is None else {"test": n_test})
    return {f"{epoch}_{part}": (n, n_classes) for epoch in EPOCHS for part, n in sizes.items()}


# -- the parts of results.json ------------------------------------------------------------------------------


def _out_of_fold(
    experiment: Experiment, splits: list[Split], probabilities: list[dict[str, np.ndarray]], n: int, n_classes: int
) -> dict[str, np.ndarray]:
    """float32 (n_repeats, n, n_classes) for each epoch; NaN where an image was never held out (a hold-out's rest)."""
    shape = (experiment.plan.n_repeats, n, n_classes)
    arrays = {epoch: np.full(shape, np.nan, dtype=np.float32) for epoch in EPOCHS}
    for split, scored in zip(splits, probabilities, strict=True):
        for epoch in EPOCHS:
            here = arrays[epoch][split.repeat]
            if not np.isnan(here[split.validation]).all():
                raise UserError(f"an image is held out twice in repeat {split.repeat}; the run's splits are damaged")
            here[split.validation] = scored[f"{epoch}_validation"]
    if experiment.plan.holdout is None and any(np.isnan(array).any() for array in arrays.values()):
        raise UserError("an image has no out-of-fold prediction; the run's folds are damaged")
    return arrays


def _out_of_fold_report(probabilities: np.ndarray, train: Images) -> dict[str, Any]:
    """Over all held-out predictions: each image once per repeat."""
    n_repeats, _, n_classes = probabilities.shape
    pooled = torch.from_numpy(probabilities.reshape(-1, n_classes))
    held_out = ~pooled[:, 0].isnan()
    labels = train.labels.cpu().repeat(n_repeats)
    return classification_report(pooled[held_out], labels[held_out], train.class_names)


def _test_scores(folds: list[dict[str, Any]], epoch: str, n_test: int) -> dict[str, Any]:
    """Mean and sd of the folds' models on the one test set; no interval of the mean, since they share its images."""
    accuracies = [fold[epoch]["test"]["accuracy"] for fold in folds]
    return {
        "accuracy": {
            "mean": float(np.mean(accuracies)),
            "sd": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
            "per_fold": accuracies,
            "wilson_per_fold": [wilson_interval(round(a * n_test), n_test) for a in accuracies],
        },
        "loss": {"mean": float(np.mean([fold[epoch]["test"]["loss"] for fold in folds]))},
    }


def _soft_vote(probabilities: list[dict[str, np.ndarray]], epoch: str) -> torch.Tensor:
    return torch.from_numpy(np.mean([scored[f"{epoch}_test"] for scored in probabilities], axis=0, dtype=np.float64))


def _ensemble(probabilities: list[dict[str, np.ndarray]], epoch: str, test: Images) -> dict[str, Any]:
    right = int((_soft_vote(probabilities, epoch).argmax(1) == test.labels.cpu()).sum())
    return {"accuracy": right / len(test), "wilson": wilson_interval(right, len(test)), "n_models": len(probabilities)}


def _ensemble_report(probabilities: list[dict[str, np.ndarray]], epoch: str, test: Images) -> dict[str, Any]:
    return classification_report(_soft_vote(probabilities, epoch), test.labels.cpu(), test.class_names)


def _refit(folder: FoldFolder, test: Images | None) -> dict[str, Any] | None:
    if not folder.finished:
        return None
    metrics = folder.read_metrics()
    refit: dict[str, Any] = {
        "epochs": metrics["epochs"],
        "n_train": metrics["n_train"],
        "checkpoint": "refit/last.ckpt",
    }
    if test is not None:
        accuracy = metrics["last"]["test"]["accuracy"]
        refit["test_accuracy"] = accuracy
        refit["wilson"] = wilson_interval(round(accuracy * len(test)), len(test))
    return refit


def _times(folds: list[dict[str, Any]]) -> dict[str, Any]:
    per_fold = [fold["times"]["train_intervals"] for fold in folds]
    train_seconds = _shared_seconds(per_fold)
    images = sum(interval[2] for intervals in per_fold for interval in intervals)
    return {
        "fold_wall_seconds": [fold["times"]["wall_seconds"] for fold in folds],
        "train_seconds": train_seconds,
        "images_trained": images,
        "images_per_second": images / train_seconds if train_seconds else None,
        "peak_memory_mb": max(fold["times"]["peak_memory_mb"] for fold in folds),
    }


def _shared_seconds(per_fold: list[list[list[Any]]]) -> float:
    """Wall time spent on training by folds that run side by side, added up over the clocks that measured it.

    Times of different clocks (another machine, or the same one after a reboot) cannot be compared: such folds count as
    one after another.

    Each moment is shared out equally among the folds that run in it, and the shares of those that train just then are
    added up: one fold that trains while another scores its epoch has half of that moment. For folds one after another
    this is the plain sum of their training times.

    Args:
        per_fold: for each fold (began, ended, images, clock) of each epoch's training, seconds; the clock may be missing.
    """
    by_clock: dict[str, list[list[tuple[float, float]]]] = {}
    for intervals in per_fold:
        own: dict[str, list[tuple[float, float]]] = {}
        for began, ended, _, *clock in intervals:
            own.setdefault("".join(clock), []).append((began, ended))
        for name, epochs in own.items():
            by_clock.setdefault(name, []).append(epochs)
    return sum(map(_shared_seconds_of_one_clock, by_clock.values()))


def _shared_seconds_of_one_clock(per_fold: list[list[tuple[float, float]]]) -> float:
    spans = [(epochs[0][0], epochs[-1][1]) for epochs in per_fold]
    trains = [epoch for epochs in per_fold for epoch in epochs]
    moments = sorted({moment for began, ended in (*spans, *trains) for moment in (began, ended)})
    seconds = 0.0
    for began, ended in pairwise(moments):
        running = sum(b <= began and ended <= e for b, e in spans)
        training = sum(b <= began and ended <= e for b, e in trains)
        seconds += (ended - began) * training / max(1, running)
    return seconds


def _caveat(experiment: Experiment, folds: list[dict[str, Any]]) -> str | None:
    start_from = experiment.config.model.get("init_args", {}).get("start_from")
    if start_from is not None:
        return (
            f"training started from the weights of {start_from}; if these were trained on images that the folds hold out, "
            "the score is optimistic"
        )
    stops_early = experiment.selection.patience is not None or any(fold["stopped_early"] for fold in folds)
    if experiment.cv.inner_holdout is None and stops_early:
        return (
            "training stopped early on the very images that are scored, so the score is optimistic; "
            "set cv.inner_holdout to choose the epoch on other images"
        )
    return None


def _absent_classes(train: Images, split: Split) -> list[str]:
    """The classes of which a fold holds images out and has none to train on."""
    labels = train.labels.cpu().numpy()
    return [train.class_names[label] for label in np.setdiff1d(labels[split.validation], labels[split.train])]


def _optimism_note(experiment: Experiment) -> str:
    if experiment.cv.inner_holdout is not None:
        return "best epoch, chosen on the inner hold-out, minus last epoch, both on the held-out fold: no optimism"
    return "best epoch, chosen on the held-out fold itself, minus last epoch: how much such a choice flatters"
