"""The page's sections beyond the accounts' protocols: equal terms, cross-validation and accuracy, more images."""

from __future__ import annotations

from operator import sub
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
        f"{overrides['trainer.max_epochs']} epochs, {runs[ranked[0]]['environment']['precision']}, last epoch scored, seed "
        f"{runs[ranked[0]]['seed']}. Each keeps its own layers, dropout, L2 and initial weights. The interval is the "
        "corrected one (Nadeau and Bengio); ensemble: soft vote of the folds' models on the test set; seconds: one fold's "
        "epoch, beside another fold.",
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
        f"sharifi-cnn, {results.row.overrides['trainer.max_epochs']} epochs, the learning rate annealed to 0; accuracy on "
        "the test set after the last epoch in %, mean ± sd over seeds. Differences are in points and paired by seed: mean, "
        "and the range over seeds. *One model*: any of them, on average; *best fold*: the model of the fold with the best "
        "validation score, which the account keeps; *ensemble*: soft vote of the models; *all images*: the refit, trained "
        "on (nearly) all 60,000, once, and three times to vote without any folds.",
        "",
        "| | what predicts | images trained on | models trained | test | against hold-out | against one model |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    hold_out = _mean_test(results.runs("hold-out")) if "hold-out" in results.variants else None
    for name in results.variants:
        runs = results.runs(name)
        n, images = len(runs[0]["folds"]), runs[0]["folds"][0]["n_train"]
        alone = _mean_test(runs)
        models = {"one model": alone}
        if n > 1:
            models |= {"best fold": _best_test(runs)} if name.startswith("k = ") else {}
            models |= {"ensemble": _ensemble_test(runs)}
        for model, scores in models.items():
            cells = [
                name if model == "one model" else "", model, f"{images:,}", n if model != "one model" else 1,
                score_of(scores),
                _difference(scores, hold_out) if hold_out and name != "hold-out" else "",
                _difference(scores, alone) if model != "one model" else "",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += [
        "",
        *answer(results),
        "",
        *bias_and_spread(results),
    ]
    return "\n".join([*lines, "", "![k, bias and spread](figures/cross-validation.png)"])


def answer(results: RowResults) -> list[str]:
    """The question's answer, from the numbers above."""
    by_k = [results.runs(name) for name in results.variants if name.startswith("k = ")]
    voters = [name for name in results.variants if name.startswith("all images, ")]
    if not by_k:
        return []
    kept = [mean(map(sub, _best_test(runs), _mean_test(runs))) for runs in by_k]
    voted = [mean(map(sub, _ensemble_test(runs), _mean_test(runs))) for runs in by_k]
    without = [mean(map(sub, _ensemble_test(results.runs(name)), _mean_test(results.runs(name)))) for name in voters]
    return [
        "Cross-validation by itself raises nothing: it changes a model only by the number of images left to train on. "
        f"Keeping the best fold's model gains {_span(kept)} points over any fold's, since folds differ by luck; the account "
        'has "87-91" without and "90-94" with cross-validation. Voting, which does raise the accuracy, gains '
        f"{_span(voted)} points at k times the cost"
        + (
            f"; it needs no folds: models of all images gain {_span(without)} by it and start higher."
            if without
            else "."
        ),
    ]


def bias_and_spread(results: RowResults) -> list[str]:
    """What k does to the estimate."""
    everything = results.variants.get("all images")
    refit = mean(_mean_test(everything["runs"])) if everything else None
    lines = [
        "What k does to the estimate: the validation score against the test score of the same models (the bias, as far as "
        "validation and test images are alike), and against that of the model of all images, which the estimate is used for.",
        "",
        "| | validation | validation - test | validation - test of one model of all images | sd between folds |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in results.variants:
        if name.startswith("all images"):  # which hold out too few for an estimate
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


def _span(shares: list[float]) -> str:
    low, high = 100 * min(shares), 100 * max(shares)
    return f"{low:+.2f}" if f"{low:+.2f}" == f"{high:+.2f}" else f"{low:+.2f} to {high:+.2f}"


def _mean_test(runs: list[dict[str, Any]]) -> list[float]:
    return [mean(fold["last"]["test"]["accuracy"] for fold in run["folds"]) for run in runs]


def _best_test(runs: list[dict[str, Any]]) -> list[float]:
    best = [max(run["folds"], key=lambda fold: fold["last"]["validation"]["accuracy"]) for run in runs]
    return [fold["last"]["test"]["accuracy"] for fold in best]


def _ensemble_test(runs: list[dict[str, Any]]) -> list[float]:
    return [run["ensemble"]["last"]["accuracy"] for run in runs]


def _difference(a: list[float], b: list[float]) -> str:
    """Points by which `a` is above `b`, for the seeds that both have."""
    points = [100 * (x - y) for x, y in zip(a, b, strict=False)]
    return f"{mean(points):+.2f}" + (f" ({min(points):+.2f} to {max(points):+.2f})" if len(points) > 1 else "")


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
