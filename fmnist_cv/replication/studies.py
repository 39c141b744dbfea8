"""The page's sections beyond the accounts' protocols: equal terms, cross-validation and accuracy, more images."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import numpy as np

from fmnist_cv.replication import figures
from fmnist_cv.replication.scores import RowResults, score_of
from fmnist_cv.validation.statistics import corrected_t_test


def sections(results: dict[str, RowResults], pictures: Path) -> list[str]:
    """The sections whose study has been run."""
    made = []
    if "equal-terms" in results:
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
    ranked = sorted(results.variants, key=lambda name: -results.accuracy(name, "validation", "last").mean)
    overrides = results.row.overrides
    lines = [
        "## On equal terms",
        "",
        f"Every network on the same {overrides['cv.n_splits']} stratified folds: Adam with cosine annealing from "
        f"{overrides['model.optimizer']['init_args']['lr']:g}, batch {overrides['data.batch_size']}, "
        f"{overrides['trainer.max_epochs']} epochs, last epoch scored, seed 0. Each keeps its own layers, dropout, L2 and "
        "initial weights. The interval is the corrected one (Nadeau and Bengio); ensemble: soft vote of the folds' models.",
        "",
        "| | network | validation: mean ± sd | 95 % interval | test, mean of folds | ensemble on test | weights | "
        "s per epoch |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for rank, name in enumerate(ranked, 1):
        run = results.runs(name)[0]
        accuracy = run["headline"]["accuracy"]
        lines.append(
            f"| {rank} | {name} | {100 * accuracy['mean']:.2f} ± {100 * accuracy['sd']:.2f} | "
            f"{100 * accuracy['low']:.2f} to {100 * accuracy['high']:.2f} | {results.accuracy(name, 'test', 'last').mean:.2f} | "
            f"{100 * run['ensemble']['last']['accuracy']:.2f} | {results.parameters(name):,} | "
            f"{results.seconds_per_epoch(name):.1f} |"
        )
    return "\n".join([*lines, "", *differences(results, ranked)])


def differences(results: RowResults, ranked: list[str]) -> list[str]:
    """Which of the networks ranked below each one are really worse: Holm's step-down over all pairs."""
    folds = {name: results.runs(name)[0]["folds"] for name in ranked}
    ratio = mean(fold["n_validation"] / fold["n_train"] for fold in folds[ranked[0]])
    scores = {name: [fold["last"]["validation"]["accuracy"] for fold in folds[name]] for name in ranked}
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
        unclear = [
            f"{below} (p = {adjusted[name, below]:.2g})" for below in ranked[i + 1 :] if adjusted[name, below] >= 0.05
        ]
        lines.append(f"| {name} | {', '.join(unclear) or 'better than all below it'} |")
    return lines


# -- does cross-validation raise accuracy? ------------------------------------------------------------------


def cross_validation(results: RowResults) -> str:
    """Hold-out model, best fold's model, ensemble and refit on the test set; and what k does to the estimate."""
    lines = [
        "## Does cross-validation raise accuracy?",
        "",
        "sharifi-cnn; accuracy on the test set in %, mean ± sd over seeds. *Mean fold*: what a fold's model has; *best "
        "fold*: the model of the fold with the best validation score, which the account keeps; *ensemble*: soft vote of "
        "all folds' models; *refit*: one model trained on all 60,000 images for the folds' median best epoch.",
        "",
        "| | images trained on | mean fold | best fold | ensemble | refit | models trained |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in results.variants:
        runs = results.runs(name)
        n = len(runs[0]["folds"])
        tests = [[fold["last"]["test"]["accuracy"] for fold in run["folds"]] for run in runs]
        best = [max(run["folds"], key=lambda fold: fold["last"]["validation"]["accuracy"]) for run in runs]
        cells = [
            score_of([float(np.mean(test)) for test in tests]),
            score_of([fold["last"]["test"]["accuracy"] for fold in best]) if n > 1 else "",
            score_of([run["ensemble"]["last"]["accuracy"] for run in runs]) if n > 1 else "",
            score_of([run["refit"]["test_accuracy"] for run in runs]),
        ]
        lines.append(f"| {name} | {runs[0]['folds'][0]['n_train']:,} | {' | '.join(map(str, cells))} | {n} |")
    lines += [
        "",
        "What k does to the estimate: the validation score against the test score of the models that it is about "
        "(their difference is the estimate's bias, as far as the two sets are alike), and against that of the model "
        "trained on all images.",
        "",
        "| | validation | test, mean fold | validation - test | validation - refit's test | sd between folds |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in results.variants:
        runs = results.runs(name)
        validation = [float(np.mean([f["last"]["validation"]["accuracy"] for f in run["folds"]])) for run in runs]
        test = [float(np.mean([f["last"]["test"]["accuracy"] for f in run["folds"]])) for run in runs]
        refit = [run["refit"]["test_accuracy"] for run in runs]
        sds = [100 * s for run in runs if (s := run["headline"]["accuracy"]["sd"]) is not None]
        lines.append(
            f"| {name} | {score_of(validation)} | {score_of(test)} | "
            f"{score_of([v - t for v, t in zip(validation, test, strict=True)])} | "
            f"{score_of([v - r for v, r in zip(validation, refit, strict=True)])} | "
            f"{f'{mean(sds):.2f}' if sds else ''} |"
        )
    return "\n".join([*lines, "", "![k, bias and spread](figures/cross-validation.png)"])


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
