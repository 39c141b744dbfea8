"""The page's sections beyond the papers' protocols: equal terms, cross-validation and accuracy, more images."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.replication import plots
from experiments.replication.scores import RowResults, score_of
from fmnist_cv.analysis.statistics import corrected_t_test, holm, within_bounds
from fmnist_cv.analysis.summary import Headline
from fmnist_cv.analysis.tables import interval_cell


def sections(results: dict[str, RowResults], pictures: Path) -> list[str]:
    """The sections whose study has been run."""
    made = []
    if "equal-terms" in results:
        for name in results["equal-terms"].variants:
            plots.draw_row(results["equal-terms"], pictures / f"equal-terms-{name}.png", name)
        made.append(equal_terms(results["equal-terms"]))
    if "cross-validation" in results:
        plots.draw_k(results["cross-validation"], pictures / "cross-validation.png")
        made.append(cross_validation(results["cross-validation"]))
    if "learning-curve" in results:
        plots.draw_learning_curve(results["learning-curve"], pictures / "learning-curve.png")
        made.append(learning_curve(results["learning-curve"]))
    if {"smith-dense", "smith-dense-l2", "smith-dense-lr"} <= results.keys():
        plots.draw_sensitivity(results, pictures / "smith-dense-sensitivity.png")
        made.append(sensitivity(results))
    return made


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
        "corrected one (Nadeau and Bengio); ensemble: soft vote of the folds' models on the test set; seconds: an epoch of "
        "the fastest fold, on one core while another fold ran.",
    ]
    if missing:
        lines += ["", f"Not run yet: {', '.join(missing)}."]
    lines += [
        "",
        "| | network | validation: mean ± sd | 95 % interval | test, mean of folds | ensemble | parameters | s per epoch |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for rank, name in enumerate(ranked, 1):
        headline: Headline = runs[name]["headline"]
        accuracy = within_bounds(headline["accuracy"])
        assert accuracy["sd"] is not None  # of several folds
        test = mean(fold["last"]["test"]["accuracy"] for fold in runs[name]["folds"])
        lines.append(
            f"| {rank} | {name} ([picture](figures/equal-terms-{name}.png)) | "
            f"{100 * accuracy['mean']:.2f} ± {100 * accuracy['sd']:.2f} | "
            f"{interval_cell(accuracy)} | {100 * test:.2f} | "
            f"{100 * runs[name]['ensemble']['last']['accuracy']:.2f} | {results.parameters(name):,} | "
            f"{results.seconds_per_epoch(name):.1f} |"
        )
    return "\n".join([*lines, "", *differences(runs, ranked), "", _all_numbers(results)])


def differences(runs: dict[str, Any], ranked: list[str]) -> list[str]:
    """Which of the networks ranked below each one are significantly worse: Holm's step-down over all pairs."""
    first = runs[ranked[0]]["folds"]
    ratio = mean(fold["n_validation"] / fold["n_train"] for fold in first)
    scores = {name: [fold["last"]["validation"]["accuracy"] for fold in runs[name]["folds"]] for name in ranked}
    pairs = [(a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :]]
    tests = [corrected_t_test(scores[a], scores[b], ratio) for a, b in pairs]
    p = holm([1.0 if test is None else test.p for test in tests])
    adjusted = dict(zip(pairs, p, strict=True))
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
        "the test set after the last epoch in %, mean ± sd over seeds. Differences are in points between runs of the same "
        "seed, whose splits differ: mean, and the range over seeds. *One model*: any of them, on average; *best fold*: the "
        "model of the fold with the best validation score, which the paper keeps; *vote*: of the models' probabilities; "
        "*all images*: the refit, trained on (nearly) all 60,000, once, and three times for a vote without folds.",
        "",
        "| | what predicts | images trained on | models trained | seeds | test | against hold-out | against one model |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    hold_out = results.test_of_folds("hold-out") if "hold-out" in results.variants else {}
    for name in results.variants:
        folds = results.runs(name)[0]["folds"]
        alone = results.test_of_folds(name)
        predictors = {"one model": (1, alone)}
        if len(folds) > 1 and name.startswith("k = "):
            predictors["best fold"] = (len(folds), results.test_of_best_fold(name))
        if len(folds) > 1:
            predictors["vote"] = (len(folds), results.test_of_ensemble(name))
        for what, (n_models, scores) in predictors.items():
            cells = [
                name if what == "one model" else "",
                what,
                f"{folds[0]['n_train']:,}",
                n_models,
                len(scores),
                score_of([*scores.values()]),
                _difference(scores, hold_out) if name != "hold-out" else "",
                _difference(scores, alone) if what != "one model" else "",
            ]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", *answer(results), "", *bias_and_spread(results), "", _all_numbers(results)]
    return "\n".join([*lines, "", "![k, bias and spread](figures/cross-validation.png)"])


def answer(results: RowResults) -> list[str]:
    """The question's answer, from the numbers above."""
    by_k = [name for name in results.variants if name.startswith("k = ")]
    if not by_k or not {"hold-out", "all images"} <= results.variants.keys():
        return []
    hold_out = results.test_of_folds("hold-out")

    def against(base: dict[str, dict[int, float]], scores: dict[str, dict[int, float]]) -> str:
        return ", ".join(f"{_mean_difference(scores[name], base[name]):+.2f} ({name})" for name in scores)

    alone = {name: results.test_of_folds(name) for name in by_k}
    kept = {name: results.test_of_best_fold(name) for name in by_k}
    voted = {name: results.test_of_ensemble(name) for name in by_k}
    without = {"all images": results.test_of_folds("all images")} | {
        f"{name}, voting": results.test_of_ensemble(name)
        for name in results.variants
        if name.startswith("all images, ")
    }
    base = dict.fromkeys([*by_k, *without], hold_out)
    best = max(_mean_difference(scores, hold_out) for found in (kept, voted, without) for scores in found.values())
    lines = [
        "In points of test accuracy, the mean over seeds:",
        "",
        f"- **One of its models** against the hold-out model: {against(base, alone)}. Cross-validation changes a model only "
        "by the number of images that are left to train on.",
        f"- **The best fold's model**, which the paper keeps, against any fold's: {against(alone, kept)}; against the "
        f"hold-out model: {against(base, kept)}.",
        f"- **The folds' vote** against one of its models: {against(alone, voted)}; against the hold-out model: "
        f"{against(base, voted)}; at the price of k trainings and k predictions.",
        f"- **Without folds**, against the hold-out model: {against(base, without)}.",
        "",
        f"The most that any of these gains over the hold-out model is {best:.2f} points. The paper has 87-91 without and "
        "90-94 with cross-validation, and does not say what gained it three points.",
    ]
    if "k = 5" in alone:
        lines += [
            "",
            "The size of chance: the hold-out model and one of k = 5 are trained alike, on as many images, and differ by "
            f"{_difference(alone['k = 5'], hold_out)}.",
        ]
    return lines


def bias_and_spread(results: RowResults) -> list[str]:
    """What k does to the estimate."""
    refit = results.test_of_folds("all images") if "all images" in results.variants else {}
    lines = [
        "What k does to the estimate. *Validation - test* is what the same models have on two sets of images: what all rows "
        "have in common there is a difference between the sets, not a bias of k. *Test - test of the refit* is k's bias: the models that "
        "are scored have seen fewer images than the one of all images, for which the estimate stands. *Chance* is the "
        "binomial standard deviation of an accuracy on as many images as a fold has: as far as folds would differ if all "
        "models were equally good.",
        "",
        "| | seeds | validation | validation - test | test - test of the refit | sd between folds | chance |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name in results.variants:
        if name.startswith("all images"):  # which hold out too few for an estimate
            continue
        runs, tests = results.runs(name), results.test_of_folds(name)
        validation = {run["seed"]: mean(f["last"]["validation"]["accuracy"] for f in run["folds"]) for run in runs}
        gaps = [validation[seed] - tests[seed] for seed in tests]
        sds = [100 * s for run in runs if (s := run["headline"]["accuracy"]["sd"]) is not None]
        share, n_validation = mean(validation.values()), runs[0]["folds"][0]["n_validation"]
        cells = [
            name,
            len(runs),
            score_of([*validation.values()]),
            score_of(gaps),
            _difference(tests, refit),
            f"{mean(sds):.2f}" if sds else "",
            f"{100 * sqrt(share * (1 - share) / n_validation):.2f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _mean_difference(a: dict[int, float], b: dict[int, float]) -> float:
    """Points by which `a` is above `b`, the mean over the seeds that both have."""
    return 100 * mean(a[seed] - b[seed] for seed in a.keys() & b.keys())


def _difference(a: dict[int, float], b: dict[int, float]) -> str:
    """The same with the range over seeds; "" where they share none."""
    points = [100 * (a[seed] - b[seed]) for seed in sorted(a.keys() & b.keys())]
    if not points:
        return ""
    return f"{mean(points):+.2f}" + (f" ({min(points):+.2f} to {max(points):+.2f})" if len(points) > 1 else "")


def _all_numbers(results: RowResults) -> str:
    return f"All numbers: [{results.row.name}.json]({results.row.table}/{results.row.name}.json)."


# -- learning curve and sensitivity -------------------------------------------------------------------------


def learning_curve(results: RowResults) -> str:
    """Accuracy over training-set size."""
    lines = [
        "## Would more images help?",
        "",
        "sharifi-cnn with 3,000 optimiser steps at batch 100, at a constant rate, on stratified samples of the training "
        "images: the smaller a sample, the more often it is seen. Mean ± sd over seeds.",
        "",
        "| images | seeds | validation | test | train, in the last epoch |",
        "|---:|---:|---:|---:|---:|",
    ]
    sizes = {name: results.runs(name)[0]["folds"][0]["n_train"] for name in results.variants}
    for name, n_train in sizes.items():
        scores = [results.accuracy(name, part, "last") for part in ("validation", "test", "train")]
        lines.append(f"| {n_train:,} | {scores[0].n} | {' | '.join(map(str, scores))} |")
    *_, before, last = results.variants
    gain = _difference(results.test_of_folds(last), results.test_of_folds(before))
    return "\n".join(
        [
            *lines,
            "",
            f"From {sizes[before]:,} to {sizes[last]:,} images the test accuracy still changes by {gain} points. "
            f"{_all_numbers(results)}",
            "",
            "![accuracy over the number of training images](figures/learning-curve.png)",
        ]
    )


def sensitivity(results: dict[str, RowResults]) -> str:
    """How much smith-dense loses by more L2 and by a lower learning rate, next to what its paper reports."""
    own = results["smith-dense"]
    lines = [
        "## How sensitive smith-dense is",
        "",
        "Validation accuracy, the mean over seeds, at the paper's own setting (1e-4 of both), at the other one, and the "
        f"difference in points; the paper has about {plots.SMITH_BASE:g} at its own setting.",
        "",
        "| | network | 1e-4 | other | difference | the paper's |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for study, base, name in (
        ("smith-dense-l2", "listing, 1 x 700", "L2 1e-2"),
        ("smith-dense-l2", "prose, 10 x 500", "prose, L2 1e-2"),
        ("smith-dense-lr", "listing, 1 x 700", "rate 1e-5"),
        ("smith-dense-lr", "prose, 10 x 500", "prose, rate 1e-5"),
    ):
        if name not in results[study].variants:
            continue
        ours, other = (found.accuracy(n, "validation", "last") for found, n in ((own, base), (results[study], name)))
        reported = results[study].row.reported_of(name) or 0
        setting = name.removeprefix("prose, ")
        lines.append(
            f"| {setting} | {base} | {ours} | {other} | {other.mean - ours.mean:+.2f} | "
            f"about {reported - plots.SMITH_BASE:+g} |"
        )
    return "\n".join([*lines, "", "![smith-dense over L2 and learning rate](figures/smith-dense-sensitivity.png)"])
