"""The pictures of the page, drawn from the rows' results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.replication.scores import RowResults
from fmnist_cv.engine.tensorboard import draw_confusion

SMITH_BASE = 87.0  # "about": the validation accuracy, in %, to which smith-dense's paper compares other settings


def draw_row(results: RowResults, path: Path, variant: str | None = None) -> None:
    """An interpretation's confusion matrix on the test set, and its curves over seeds and folds; by default the first's."""
    variant = variant or next(iter(results.variants))
    figure = Figure(figsize=(13.5, 5.6), layout="constrained")
    loss, accuracy, confusion = figure.subplots(1, 3, width_ratios=[0.8, 0.8, 1.15])
    for run in results.runs(variant):
        for fold in run["folds"]:
            curves = fold["curves"]
            for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
                scale = 100 if name == "accuracy" else 1
                for part, style in (("train", "--"), ("val", "-")):
                    values = scale * np.array(curves[f"{part}/{name}"])
                    colour = "tab:gray" if part == "train" else f"C{run['seed'] % 10}"
                    axes.plot(curves["epoch"], values, style, color=colour, linewidth=1.2)
    for axes, name in ((loss, "loss"), (accuracy, "accuracy, %")):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    loss.plot([], [], "--", color="tab:gray", label="in training")
    loss.plot([], [], "-", color="C0", label="held out, a colour per seed")
    loss.legend(fontsize=8)
    accuracy.set_title(f"{results.row.name}: {variant}")
    draw_confusion(confusion, results.confusion_report(variant))
    confusion.set_title(f"test set, {results.row.epoch} epoch, all seeds and folds")
    _save(figure, path)


def draw_k(results: RowResults, path: Path) -> None:
    """Validation and test score over k: the estimate's bias and the spread of folds."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    for x, name in enumerate(results.variants):
        for run in results.runs(name):
            folds = [100 * fold["last"]["validation"]["accuracy"] for fold in run["folds"]]
            shift = x + 0.12 * (run["seed"] - 1)
            if not name.startswith("all images"):  # which hold out too few for an estimate
                axes.plot([shift] * len(folds), folds, "o", color="tab:blue", alpha=0.35, markersize=4)
                axes.plot(shift, np.mean(folds), "_", color="tab:blue", markersize=14, markeredgewidth=2)
            test = 100 * np.mean([fold["last"]["test"]["accuracy"] for fold in run["folds"]])
            axes.plot(shift, test, "x", color="tab:orange", markersize=7)
            if len(folds) > 1:
                axes.plot(shift, 100 * run["ensemble"]["last"]["accuracy"], "^", color="tab:green", markersize=6)
    axes.plot([], [], "o", color="tab:blue", alpha=0.35, label="a fold's validation score")
    axes.plot(
        [], [], "_", color="tab:blue", markersize=14, markeredgewidth=2, label="a run's validation score: the estimate"
    )
    axes.plot([], [], "x", color="tab:orange", label="its models on the test set, mean")
    axes.plot([], [], "^", color="tab:green", label="their soft vote on the test set")
    axes.set_xticks(range(len(results.variants)), [name.replace(", ", ",\n") for name in results.variants])
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.3, axis="y")
    axes.legend(fontsize=8)
    _save(figure, path)


def draw_learning_curve(results: RowResults, path: Path) -> None:
    """Accuracy over the number of training images, with the spread over seeds."""
    figure = Figure(figsize=(6.5, 4.3), layout="constrained")
    axes = figure.subplots()
    sizes = [results.runs(name)[0]["folds"][0]["n_train"] for name in results.variants]
    for part, marker in (("validation", "o"), ("test", "x")):
        _errorbars(axes, sizes, results, list(results.variants), part, marker)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("training images")
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def draw_sensitivity(results: dict[str, RowResults], path: Path) -> None:
    """smith-dense's validation accuracy over L2 and over the learning rate; 1e-4 of both is the paper's own."""
    base = results["smith-dense"]
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, study, label in (
        (panels[0], results["smith-dense-l2"], "L2 coefficient"),
        (panels[1], results["smith-dense-lr"], "learning rate"),
    ):
        for own, colour in zip(base.variants, ("tab:blue", "tab:green"), strict=False):
            kind = own.split(",")[0]  # listing or prose
            names = [n for n in study.variants if n.startswith("prose") == (kind == "prose")]
            points = [(float(name.split()[-1]), study.accuracy(name, "validation", "last")) for name in names]
            points = sorted([(1e-4, base.accuracy(own, "validation", "last")), *points], key=lambda point: point[0])
            axes.errorbar(
                [x for x, _ in points],
                [s.mean for _, s in points],
                [s.sd or 0 for _, s in points],
                marker="o",
                capsize=3,
                color=colour,
                label=f"ours, {own}",
            )
        reported = {1e-4: SMITH_BASE} | {float(n.split()[-1]): study.row.reported_of(n) for n in study.variants}
        axes.plot(
            *zip(*((x, y) for x, y in reported.items() if y is not None), strict=True),
            "s",
            color="tab:orange",
            label="reported (about)",
        )
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    panels[0].set_ylabel("validation accuracy, %")
    _save(figure, path)


def _errorbars(axes: Axes, xs: list[int], results: RowResults, variants: list[str], part: str, marker: str) -> None:
    scores = [results.accuracy(name, part, "last") for name in variants]
    axes.errorbar(xs, [s.mean for s in scores], [s.sd or 0 for s in scores], marker=marker, capsize=3, label=part)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
