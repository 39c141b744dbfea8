"""The page's sections beyond the accounts' protocols: equal terms, cross-validation and accuracy, more images."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from fmnist_cv.replication import figures
from fmnist_cv.replication.scores import RowResults, score_of
from fmnist_cv.validation.statistics import corrected_t_test


def sections(results: dict[str, RowResults], pictures: Path) -> list[str]:
    """The sections whose study has been run."""
    made = []
    if "equal-terms" in results:
        for name in results["equal-terms"].variants:
            figures.draw_row(results["equal-terms"], pictures / f"equal-terms-{name}.png", name)
        made.append(equal_terms(results["equal-terms"]))
    if "cross-validation" in results:
        figures.draw_k(results["cross-validation"], pictures / "cross-validation.png")
        made.append(cross_validation(results["cross-validation"]))
    if "learning-curve" in results:
        figures.draw_learning_curve(results["learning-curve"], pictures / "learning-curve.png")
        made.append(learning_curve(results["learning-curve"]))
    if {"smith-dense", "smith-dense-l2", "smith-dense-lr"} <= results.keys():
        figures.draw_sensitivity(results, pictures / "smith-dense-sensitivity.png")
        made.append(SENSITIVITY)
    return made


SENSITIVITY = """## How sensitive smith-dense is

![smith-dense over L2 and learning rate](figures/smith-dense-sensitivity.png)"""


# -- equal terms --------------------------------------------------------------------------------------------


def equal_terms(results: RowResults) -> str:
    """All networks ranked, and which differences are real."""
    runs = {name: results.runs(name)[0] for name in results.variants}
    ranked = sorted(runs, key=lambda name: -runs[name]["headline"]["accuracy"]["mean"])
    missing = [name for name in results.row.variants if name not in runs]
    overrides = results.row.overrides
    lines = [
        "## On equal terms",
        "",
        f"Every network on the same {overrides['cv.n_splits']} stratified folds: Adam with cosine annealing from "
        f"{overrides['model.optimizer']['init_args']['lr']:g}, batch {overrides['data.batch_size']}, "
        f"{overrides['trainer.max_epochs']} epochs, last epoch scored, seed {runs[ranked[0]]['seed']}. Each keeps its own "
        "layers, dropout, L2 and initial weights. The interval is the corrected one (Nadeau and Bengio); ensemble: soft "
        "vote of the folds' models on the test set; seconds: one fold's epoch, beside another fold.",
    ]
    if missing:
        lines += ["", f"Not run yet: {', '.join(missing)}."]
    lines += [
        "",
        "| | network | validation: mean ± sd | 95 % interval | test, mean of folds | ensemble | weights | s per epoch |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for rank, name in enumerate(ranked, 1):
        accuracy = runs[name]["headline"]["accuracy"]
        test = mean(fold["last"]["test"]["accuracy"] for fold in runs[name]["folds"])
        lines.append(
            f"| {rank} | {name} ([picture](figures/equal-terms-{name}.png)) | "
            f"{100 * accuracy['mean']:.2f} ± {100 * accuracy['sd']:.2f} | "
            f"{100 * accuracy['low']:.2f} to {100 * accuracy['high']:.2f} | {100 * test:.2f} | "
            f"{100 * runs[name]['ensemble']['last']['accuracy']:.2f} | {results.parameters(name):,} | "
            f"{results.seconds_per_epoch(name):.1f} |"
        )
    return "\n".join([*lines, "", *differences(runs, ranked)])


def differences(runs: dict[str, Any], ranked: list[str]) -> list[str]:
    """Which of the networks ranked below each one are really worse: Holm's step-down over all pairs."""
    first = runs[ranked[0]]["folds"]
    ratio = mean(fold["n_validation"] / fold["n_train"] for fold in first)
    scores = {name: [fold["last"]["validation"]["accuracy"] for fold in runs[name]["folds"]] for name in ranked}
    pairs = [(a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :]]
    p = {pair: corrected_t_test(scores[pair[0]], scores[pair[1]], ratio).p for pair in pairs}
    adjusted: dict[tuple[str, str], float] = {}
    largest = 0.0
    for i, pair in enumerate(sorted(pairs, key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(pairs) - i) * p[pair]))
        adjusted[pair] = largest
    lines = [
        "Which differences are real, by the corrected resampled t-test on the shared folds, with Holm's correction for "
        f"all {len(pairs)} pairs at 5 %:",
        "",
        "| network | not shown to be better than |",
        "|---|---|",
    ]
    for i, name in enumerate(ranked[:-1]):
        below = [other for other in ranked[i + 1 :] if adjusted[name, other] >= 0.05]
        unclear = ", ".join(f"{other} (p = {adjusted[name, other]:.2g})" for other in below)
        lines.append(f"| {name} | {unclear or 'better than all below it'} |")
    return lines


# -- does cross-validation raise accuracy? ------------------------------------------------------------------


def cross_validation(results: RowResults) -> str:
    """Hold-out model, best fold's model, ensemble and a model of all images on the test set; and what k does."""
    lines = [
        "## Does cross-validation raise accuracy?",
        "",
        "sharifi-cnn, last epoch; accuracy on the test set in %, mean ± sd over seeds. *Mean fold*: what a fold's model "
        "has; *best fold*: the model of the fold with the best validation score, which the account keeps; *ensemble*: "
        "soft vote of the folds' models; *all images*: the refit, one model of (nearly) all 60,000 images, trained for as "
        "many epochs.",
        "",
        "| | images trained on | models trained | mean fold | best fold | ensemble |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in results.variants:
        runs = results.runs(name)
        n = len(runs[0]["folds"])
        cells = [score_of(_mean_test(runs))]
        if n > 1:
            cells += [score_of(_best_test(runs)), score_of(_ensemble_test(runs))]
        shown = " | ".join([*map(str, cells), *[""] * (3 - len(cells))])
        lines.append(f"| {name} | {runs[0]['folds'][0]['n_train']:,} | {n} | {shown} |")
    lines += ["", *answer(results), "", *bias_and_spread(results)]
    return "\n".join([*lines, "", "![k, bias and spread](figures/cross-validation.png)"])


def answer(results: RowResults) -> list[str]:
    """The question's answer in words, from differences paired by seed."""
    lines = []
    for name in results.variants:
        runs = results.runs(name)
        if len(runs[0]["folds"]) == 1:
            continue
        mean_fold, best, ensemble = _mean_test(runs), _best_test(runs), _ensemble_test(runs)
        lines.append(
            f"- {name}: the best fold's model has {_difference(best, mean_fold)} points against the mean fold's, "
            f"the ensemble {_difference(ensemble, mean_fold)}."
        )
    return [
        "Differences paired by seed, mean and the range over seeds. Choosing the best fold changes what is *kept*; "
        "voting changes what is *predicted*, at k times the cost; the splitting by itself changes no model:",
        "",
        *lines,
    ]


def bias_and_spread(results: RowResults) -> list[str]:
    """What k does to the estimate."""
    everything = results.variants.get("all images")
    refit = mean(_mean_test(everything["runs"])) if everything else None
    lines = [
        "What k does to the estimate: the validation score against the test score of the same models (the bias, as far as "
        "validation and test images are alike), and against that of the model of all images, which the estimate is used for.",
        "",
        "| | validation | validation - test | validation - test of all images | sd between folds |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in results.variants:
        if name == "all images":
            continue
        runs = results.runs(name)
        validation = [mean(f["last"]["validation"]["accuracy"] for f in run["folds"]) for run in runs]
        gaps = [v - t for v, t in zip(validation, _mean_test(runs), strict=True)]
        sds = [100 * s for run in runs if (s := run["headline"]["accuracy"]["sd"]) is not None]
        lines.append(
            f"| {name} | {score_of(validation)} | {score_of(gaps)} | "
            f"{'' if refit is None else score_of([v - refit for v in validation])} | {f'{mean(sds):.2f}' if sds else ''} |"
        )
    return lines


def _mean_test(runs: list[dict[str, Any]]) -> list[float]:
    return [mean(fold["last"]["test"]["accuracy"] for fold in run["folds"]) for run in runs]


def _best_test(runs: list[dict[str, Any]]) -> list[float]:
    best = [max(run["folds"], key=lambda fold: fold["last"]["validation"]["accuracy"]) for run in runs]
    return [fold["last"]["test"]["accuracy"] for fold in best]


def _ensemble_test(runs: list[dict[str, Any]]) -> list[float]:
    return [run["ensemble"]["last"]["accuracy"] for run in runs]


def _difference(a: list[float], b: list[float]) -> str:
    points = [100 * (x - y) for x, y in zip(a, b, strict=True)]
    return f"{mean(points):+.2f} ({min(points):+.2f} to {max(points):+.2f})"


# -- learning curve -----------------------------------------------------------------------------------------


def learning_curve(results: RowResults) -> str:
    """Accuracy over training-set size."""
    lines = [
        "## Would more images help?",
        "",
        "sharifi-cnn with 3,000 optimiser steps at batch 100 on stratified samples of the training images; mean ± sd over "
        "seeds.",
        "",
        "| images | validation | test | train, in the last epoch |",
        "|---:|---:|---:|---:|",
    ]
    for name in results.variants:
        n_train = results.runs(name)[0]["folds"][0]["n_train"]
        scores = [results.accuracy(name, part, "last") for part in ("validation", "test", "train")]
        lines.append(f"| {n_train:,} | {' | '.join(map(str, scores))} |")
    return "\n".join([*lines, "", "![accuracy over the number of training images](figures/learning-curve.png)"])
