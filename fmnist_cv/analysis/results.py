"""Gather the finished folds of a run: out-of-fold predictions, summary statistics, and the text report."""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console

from fmnist_cv.analysis.statistics import ScoreSummary, mean_ratio, summarise, wilson_interval
from fmnist_cv.analysis.summary import (
    BOUNDS,
    EPOCHS,
    FORMAT,
    CVPlan,
    EnsembleScore,
    FoldSummary,
    Groups,
    Interval,
    Metric,
    RefitSummary,
    RunSummary,
    TestScores,
)
from fmnist_cv.analysis.tables import markdown_report
from fmnist_cv.analysis.training_time import summarise_times
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.data import Images, Split
from fmnist_cv.data.group_sizes import count_copies, dominant_groups, sizes_of_groups
from fmnist_cv.data.sampling import drawn, sampling_of
from fmnist_cv.engine.best_effort import best_effort, warn_on
from fmnist_cv.engine.checked_files import Shape
from fmnist_cv.engine.environment import Environment
from fmnist_cv.engine.run_folder import FoldFolder, RunFolder, replace_file, write_arrays, write_json
from fmnist_cv.engine.run_records import Epoch, FoldMetrics
from fmnist_cv.engine.scoring import ClassificationReport, classification_report
from fmnist_cv.errors import UserError


def write_results(
    run: RunFolder,
    experiment: Experiment,
    splits: list[Split],
    train: Images,
    test: Images | None,
    console: Console | None = None,
) -> RunSummary:
    """Gather the finished folds into `out_of_fold.npz`, `results.json` and `report.md`.

    The link to the best checkpoint and report.md come last; an error in them is shown and does not fail the run.

    Args:
        run: the run; all its folds are finished.
        experiment: the run's experiment.
        splits: the run's splits.
        train, test: the images, for their labels.
        console: where such errors are shown; None makes them warnings.

    Returns:
        The content of results.json.
    """
    folders = [run.fold(split.repeat, split.fold, experiment.plan.n_repeats) for split in splits]
    folds = [folder.read_metrics() for folder in folders]
    n_test = None if test is None else len(test)
    probabilities = [
        folder.read_probabilities(_shapes(split, len(train.class_names), n_test))
        for folder, split in zip(folders, splits, strict=True)
    ]
    out_of_fold = _out_of_fold(experiment, splits, probabilities, len(train), len(train.class_names))
    labelled = {"labels": train} if test is None else {"labels": train, "test_labels": test}
    labels = {name: images.labels.cpu().numpy() for name, images in labelled.items()}
    write_arrays(run.out_of_fold, out_of_fold | labels)

    headline = experiment.headline
    ratio = mean_ratio(folds)
    accuracies = [fold[headline]["validation"]["accuracy"] for fold in folds]
    gaps = [fold["best"]["validation"]["accuracy"] - fold["last"]["validation"]["accuracy"] for fold in folds]
    best = int(np.argmax(accuracies))
    checkpoint = folders[best].last_checkpoint if headline == "last" else folders[best].best_checkpoint
    info = run.read_run_info()
    results: RunSummary = {
        "format": FORMAT,
        "experiment": experiment.name,
        "run": run.name,
        "data": info["data"],
        "seed": experiment.seed,
        "cv": _cv_plan(experiment),
        "held_out": len(np.unique(np.concatenate([split.validation for split in splits]))),
        "groups": _groups(folders, splits, train),
        "copies": count_copies(train),
        "sampling": sampling_of(train),
        "headline": {
            "epoch": headline,
            "accuracy": summarise(accuracies, ratio),
            "wilson": [_wilson(a, fold["n_validation"]) for a, fold in zip(accuracies, folds, strict=True)],
            "caveat": _caveat(experiment, folds),
        },
        "untrained_classes": _untrained_classes(folders, splits, train),
        "validation": {epoch: _validation_scores(folds, epoch, ratio) for epoch in EPOCHS},
        "test": None if test is None else {epoch: _test_scores(folds, epoch, len(test)) for epoch in EPOCHS},
        "ensemble": None if test is None else {epoch: _ensemble(probabilities, epoch, test) for epoch in EPOCHS},
        "optimism": {"accuracy": float(np.mean(gaps)), "per_fold": gaps, "what": _optimism_note(experiment)},
        "best_fold": {
            "name": folders[best].name,
            "validation_accuracy": accuracies[best],
            "checkpoint": checkpoint.relative_to(run.path).as_posix(),
        },
        "folds": [_fold_summary(folder, fold) for folder, fold in zip(folders, folds, strict=True)],
        "out_of_fold_report": _out_of_fold_report(out_of_fold[headline], train),
        "test_report": None if test is None else _ensemble_report(probabilities, headline, test),
        "refit": _refit(run.refit, test),
        "environment": _environment(info["environment"], folds),
        "times": summarise_times(folds),
    }
    write_json(run.results, results, with_digest=True)
    warn = warn_on(console)
    with best_effort(f"{run.best_checkpoint}, a link to the best fold's checkpoint,", warn):
        run.link_best(checkpoint)
    with best_effort(str(run.markdown_report), warn):
        text = markdown_report(results)
        replace_file(run.markdown_report, lambda file: file.write(text.encode()))
    return results


def _shapes(split: Split, n_classes: int, n_test: int | None) -> dict[str, Shape]:
    """Shapes of the arrays in a fold's probabilities.npz."""
    sizes = {"validation": len(split.validation)} | ({} if n_test is None else {"test": n_test})
    return {f"{epoch}_{part}": (n, n_classes) for epoch in EPOCHS for part, n in sizes.items()}


# -- the parts of results.json ------------------------------------------------------------------------------


def _cv_plan(experiment: Experiment) -> CVPlan:
    plan = experiment.plan
    return {
        "folds_per_repeat": plan.folds_per_repeat,
        "n_repeats": plan.n_repeats,
        "stratify": plan.stratify,
        "holdout": plan.holdout,
        "inner_holdout": plan.inner_holdout,
        "train_size": plan.train_size,
        "splitter": plan.splitter,
        "splits": plan.splits,
        "test": experiment.cv.test,
    }


def _groups(folders: list[FoldFolder], splits: list[Split], train: Images) -> Groups | None:
    if (sizes := sizes_of_groups(train)) is None:
        return None
    dominant = {
        folder.name: group
        for folder, group in zip(folders, dominant_groups(train, splits), strict=True)
        if group is not None
    }
    return {"n": sizes[0], "largest": sizes[1], "dominant": dominant}


def _fold_summary(folder: FoldFolder, metrics: FoldMetrics) -> FoldSummary:
    kept = {key: value for key, value in metrics.items() if key not in ("history", "times")}
    summary: FoldSummary = {"name": folder.name, **kept}  # type: ignore[typeddict-item]
    return summary


def _environment(environment: Environment, folds: list[FoldMetrics]) -> Environment:
    """The run's, with the devices of all folds, which may have run on several machines."""
    devices = dict.fromkeys(fold.get("device", environment["device"]) for fold in folds)
    return {**environment, "device": " + ".join(devices)}


def _wilson(accuracy: float, n: int) -> Interval:
    return wilson_interval(round(accuracy * n), n)


def _validation_scores(folds: list[FoldMetrics], epoch: Epoch, ratio: float) -> dict[Metric, ScoreSummary]:
    return {
        metric: summarise([fold[epoch]["validation"][metric] for fold in folds], ratio, bounds=bounds)
        for metric, bounds in BOUNDS.items()
    }


def _out_of_fold(
    experiment: Experiment, splits: list[Split], probabilities: list[dict[str, np.ndarray]], n: int, n_classes: int
) -> dict[str, np.ndarray]:
    """float32 (n_repeats, n, n_classes) for each epoch; NaN where an image was never held out."""
    shape = (experiment.plan.n_repeats, n, n_classes)
    arrays: dict[str, np.ndarray] = {epoch: np.full(shape, np.nan, dtype=np.float32) for epoch in EPOCHS}
    for split, scored in zip(splits, probabilities, strict=True):
        for epoch in EPOCHS:
            here = arrays[epoch][split.repeat]
            if not np.isnan(here[split.validation]).all():
                raise UserError(f"an image is held out twice in repeat {split.repeat}; the run's splits are damaged")
            here[split.validation] = scored[f"{epoch}_validation"]
    is_complete = experiment.plan.holdout is None and not experiment.plan.is_given
    if is_complete and any(np.isnan(array).any() for array in arrays.values()):
        raise UserError("an image has no out-of-fold prediction; the run's folds are damaged")
    return arrays


def _out_of_fold_report(probabilities: np.ndarray, train: Images) -> ClassificationReport:
    """Over all held-out predictions: each image once per repeat."""
    n_repeats, _, n_classes = probabilities.shape
    pooled = torch.from_numpy(probabilities.reshape(-1, n_classes))
    held_out = ~pooled[:, 0].isnan()
    labels = train.labels.cpu().repeat(n_repeats)
    return classification_report(pooled[held_out], labels[held_out], train.class_names)


def _test_scores(folds: list[FoldMetrics], epoch: Epoch, n_test: int) -> TestScores:
    accuracies = [fold[epoch]["test"]["accuracy"] for fold in folds]
    return {
        "accuracy": {
            "mean": float(np.mean(accuracies)),
            "sd": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
            "per_fold": accuracies,
            "wilson_per_fold": [_wilson(accuracy, n_test) for accuracy in accuracies],
        },
        "loss": {"mean": float(np.mean([fold[epoch]["test"]["loss"] for fold in folds]))},
    }


def _soft_vote(probabilities: list[dict[str, np.ndarray]], epoch: str) -> torch.Tensor:
    return torch.from_numpy(np.mean([scored[f"{epoch}_test"] for scored in probabilities], axis=0, dtype=np.float64))


def _ensemble(probabilities: list[dict[str, np.ndarray]], epoch: Epoch, test: Images) -> EnsembleScore:
    correct = int((_soft_vote(probabilities, epoch).argmax(1) == test.labels.cpu()).sum())
    return {
        "accuracy": correct / len(test),
        "wilson": wilson_interval(correct, len(test)),
        "n_models": len(probabilities),
    }


def _ensemble_report(probabilities: list[dict[str, np.ndarray]], epoch: Epoch, test: Images) -> ClassificationReport:
    return classification_report(_soft_vote(probabilities, epoch), test.labels.cpu(), test.class_names)


def _refit(folder: FoldFolder, test: Images | None) -> RefitSummary | None:
    if not folder.finished:
        return None
    metrics = folder.read_metrics()
    refit: RefitSummary = {"epochs": metrics["epochs"], "n_train": metrics["n_train"], "checkpoint": "refit/last.ckpt"}
    if test is not None:
        accuracy = metrics["last"]["test"]["accuracy"]
        refit["test_accuracy"] = accuracy
        refit["wilson"] = _wilson(accuracy, len(test))
    return refit


def _caveat(experiment: Experiment, folds: list[FoldMetrics]) -> str | None:
    start_from = experiment.config.model.get("init_args", {}).get("start_from")
    if start_from is not None:
        return (
            f"training started from the weights of {start_from}; if these were trained on images that the folds hold out, "
            "the score is optimistically biased"
        )
    stops_early = experiment.selection.patience is not None or any(fold["stopped_early"] for fold in folds)
    if experiment.cv.inner_holdout is None and stops_early:
        return (
            "early stopping used the images that are scored, so the score is optimistically biased; "
            "set cv.inner_holdout to choose the epoch on other images"
        )
    return None


def _untrained_classes(folders: list[FoldFolder], splits: list[Split], train: Images) -> dict[str, list[str]]:
    """By fold, the classes that it holds out images of and has none of in its training part."""
    labels = train.labels.cpu().numpy()
    untrained = {}
    for folder, split in zip(folders, splits, strict=True):
        absent = np.setdiff1d(labels[split.validation], labels[drawn(train, split.train)])
        if len(absent):
            untrained[folder.name] = [train.class_names[label] for label in absent]
    return untrained


def _optimism_note(experiment: Experiment) -> str:
    if experiment.cv.inner_holdout is not None:
        return "best epoch, chosen on the inner hold-out, minus last epoch, both on the held-out fold: unbiased"
    return "best epoch, chosen on the held-out fold itself, minus last epoch: optimistically biased"
