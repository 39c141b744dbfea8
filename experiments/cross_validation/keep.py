"""Keep the results of a finished run: its results.json in this folder, a line in README.md and, if requested, a picture.

python experiments/cross_validation/keep.py lightning_logs/sharifi-cnn/k3 sharifi-cnn-k3 --picture
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.analysis.statistics import within_bounds
from fmnist_cv.analysis.tables import interval_cell, percent
from fmnist_cv.engine.tensorboard import draw_confusion
from fmnist_cv.utils import paths

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=paths.argument)
    parser.add_argument("name")
    parser.add_argument("--picture", action="store_true")
    options = parser.parse_args()
    result = CrossValidationResult.load(options.run)
    shutil.copyfile(options.run / "results.json", HERE / f"{options.name}.json")
    if options.picture:
        figure = Figure(figsize=(12.5, 5.6), layout="constrained")
        curves, confusion = figure.subplots(1, 2, width_ratios=[1, 1.15])
        draw_curves(curves, result)
        draw_confusion(confusion, result.summary["out_of_fold_report"])
        confusion.set_title("each training image, by the model that never saw it")
        figure.savefig(HERE / f"{options.name}.png", dpi=90)
    (HERE / "README.md").write_text(INTRODUCTION + "\n".join(table()) + "\n", encoding="utf-8")


INTRODUCTION = """# Runs worth keeping

Each JSON is the `results.json` of a run on the real Fashion-MNIST with a config of the commit named; this page is made
from them by `keep.py`. Accuracies in %; validation is the last epoch on the held-out folds, with the corrected 95 % interval of
the mean; the ensemble is the soft vote of the folds' models on the test set.

"""


def table() -> list[str]:
    """A line per kept run."""
    lines = [
        "| run | folds | epochs | validation: mean ± sd | interval | test, mean of folds | ensemble on test | "
        "precision | training, s | device | commit |",
        "|---|---:|---:|---:|---:|---:|---:|---|---:|---|---|",
    ]
    for path in sorted(HERE.glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        accuracy, environment = run["headline"]["accuracy"], run["environment"]
        epoch = run["headline"]["epoch"]
        tests = ["", ""]
        if run["test"]:
            tests = [percent(run["test"][epoch]["accuracy"]["mean"]), percent(run["ensemble"][epoch]["accuracy"])]
        lines.append(
            f"| [{path.stem}]({path.name}) | {accuracy['n']} | {run['folds'][0]['epochs']} | "
            f"{percent(accuracy['mean'])} ± {percent(accuracy['sd'])} | "
            f"{interval_cell(within_bounds(accuracy))} | "
            f"{' | '.join(tests)} | "
            f"{environment['precision']} | {run['times']['train_seconds']:.0f} | {environment['device']} | "
            f"{environment['commit']} |"
        )
    return lines


def draw_curves(axes: Axes, result: CrossValidationResult) -> None:
    for name in (fold["name"] for fold in result.summary["folds"]):
        history = json.loads((result.path / name / "metrics.json").read_text(encoding="utf-8"))["history"]
        epochs = range(1, len(history) + 1)
        axes.plot(epochs, [100 * e["train/accuracy"] for e in history], "--", color="tab:gray", linewidth=1)
        axes.plot(
            epochs, [100 * e["val/accuracy"] for e in history], marker="o", markersize=4, label=f"{name}, held out"
        )
    axes.plot([], [], "--", color="tab:gray", label="in training (dropout on)")
    accuracy = result.summary["headline"]["accuracy"]
    if accuracy["low"] is not None:
        axes.axhspan(
            100 * accuracy["low"], 100 * accuracy["high"], alpha=0.12, label="corrected 95 % interval of the mean"
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy, %")
    axes.set_title(f"{result.summary['experiment']}: {100 * accuracy['mean']:.2f} ± {100 * accuracy['sd']:.2f} (sd)")
    axes.legend(loc="lower right", fontsize=8)


if __name__ == "__main__":
    main()
