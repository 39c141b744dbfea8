"""Does leaving out likely label errors help? Measured on the test set, which neither the errors nor the training has seen.

    python experiments/cleaning/clean.py                       # 3 seeds of 5 folds, 5 epochs, three arms: 45 folds
    python experiments/cleaning/clean.py --seeds 5 --epochs 10
    python experiments/cleaning/clean.py --page                # regenerate README.md from results.json

For each seed, three cross-validations with the same seed, folds and epochs:

    all      on all training images
    cleaned  without the likely label errors that label_issues.csv of the first names, by out-of-fold evidence alone
    random   without as many images of each class, drawn at random: what fewer images do

Compared are the soft votes of the folds' models on the untouched test set, and the single models. Validation scores are
not: each arm holds out other images, and those of the cleaned arm are the easier ones. Writes results.json and README.md.
The same command resumes an interrupted measurement.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from scipy import stats

from fmnist_cv import CrossValidationResult, cross_validate
from fmnist_cv.analysis.statistics import mcnemar
from fmnist_cv.cross_validation import as_experiment
from fmnist_cv.engine.preparation import run_or_resume
from fmnist_cv.engine.run_folder import RunFolder, replace_file, write_json
from fmnist_cv.engine.writable import check_writable
from fmnist_cv.reporting.label_issues import LABEL_ERROR, LEFT_OUT
from fmnist_cv.reporting.page import write_report
from fmnist_cv.utils import paths

HERE = Path(__file__).parent
ARMS = {
    "all": "all training images",
    "cleaned": "without likely label errors",
    "random": "without as many of each class, at random",
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="sharifi-cnn", help="the experiment (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 (default: %(default)s)")
    parser.add_argument("--n_splits", type=int, default=5, help="folds (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--log_dir", type=paths.argument, default=Path("lightning_logs"), help="(default: %(default)s)")
    parser.add_argument("--out", type=paths.argument, default=HERE, help="folder of results.json and README.md")
    parser.add_argument("--page", action="store_true", help="run nothing; regenerate README.md")
    options = parser.parse_args(arguments)
    check_writable(options.out, "--out", "")
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.json"
    if not options.page:
        write_json(results, measure(options))
    text = page(json.loads(results.read_text(encoding="utf-8")))
    replace_file(options.out / "README.md", lambda file: file.write(text.encode()))


# -- measuring ----------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is not there yet, and compare."""
    seeds = []
    for seed in range(options.seeds):
        whole = run(options, "all", seed, None)
        files = choose_left_out(whole, options.log_dir / "cleaning", seed)
        arms = {"all": whole} | {arm: run(options, arm, seed, path) for arm, path in files.items()}
        seeds.append({"seed": seed, **compare(arms)})
    summary = whole.summary
    return {
        "config": Path(options.config).stem,
        "n_splits": options.n_splits,
        "epochs": options.epochs,
        "data": summary["data"],
        "environment": summary["environment"],
        "seeds": seeds,
        "differences": {arm: differences(seeds, arm) for arm in ARMS if arm != "all"},
    }


def run(options: argparse.Namespace, arm: str, seed: int, leave_out: Path | None) -> CrossValidationResult:
    """One arm's cross-validation, new or resumed."""
    overrides: dict[str, Any] = {
        "name": f"cleaning-{arm}",
        "log_dir": str(options.log_dir),
        "seed": seed,
        "cv.n_splits": options.n_splits,
        "trainer.max_epochs": options.epochs,
    }
    if leave_out is not None:
        overrides["data.leave_out"] = str(leave_out)
    experiment = as_experiment(options.config, overrides)
    return cross_validate(experiment, **run_or_resume(experiment, f"seed_{seed}"), console=Console())


def choose_left_out(whole: CrossValidationResult, folder: Path, seed: int) -> dict[str, Path]:
    """Write what the two other arms leave out, each image by its place in the whole data set."""
    write_report(whole)
    listed = pd.read_csv(RunFolder(whole.path).label_issues)
    errors = listed.loc[listed["kind"] == LABEL_ERROR, "index"].to_numpy()
    already = listed.loc[listed["kind"] == LEFT_OUT, "index"].to_numpy()
    numbers = whole.data.train_images.places
    labels_of_errors = whole.labels[np.searchsorted(numbers, errors)]
    random = np.random.default_rng(seed)
    drawn = [
        random.choice(numbers[whole.labels == label], n, replace=False)
        for label, n in zip(*np.unique(labels_of_errors, return_counts=True), strict=True)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for arm, indices in (("cleaned", errors), ("random", np.concatenate([errors[:0], *drawn]))):
        files[arm] = folder / f"{arm}_seed_{seed}.csv"
        pd.DataFrame({"index": np.sort(np.concatenate([already, indices]))}).to_csv(files[arm], index=False)
    return files


def compare(arms: dict[str, CrossValidationResult]) -> dict[str, Any]:
    """One seed's scores on the test set, and each arm against all images."""
    labels = arms["all"].data.test_images.labels.numpy()
    right = {
        arm: result.test_probabilities().mean(0, dtype=np.float64).argmax(1) == labels for arm, result in arms.items()
    }
    names = arms["all"].summary["data"]["class_names"]
    n_by_class = {arm: np.bincount(result.labels, minlength=len(names)) for arm, result in arms.items()}
    left_out = n_by_class["all"] - n_by_class["cleaned"]
    return {
        "n_left_out": int(left_out.sum()),
        "left_out_by_class": dict(zip(names, left_out.tolist(), strict=True)),
        "arms": {
            arm: {
                "n_train": result.summary["data"]["n_train"],
                "vote": float(right[arm].mean()),
                "single_models": result.test_accuracies.tolist(),
                "validation_of_its_own_images": result.mean,
            }
            for arm, result in arms.items()
        },
        "mcnemar": {arm: asdict(mcnemar(right[arm], right["all"])) for arm in arms if arm != "all"},
    }


def differences(seeds: list[dict[str, Any]], arm: str) -> dict[str, Any]:
    """Arm minus all images, paired by seed: mean, sd, and 95 % t-interval over the seeds, of vote and single models."""
    scores = {
        "vote": [seed["arms"][arm]["vote"] - seed["arms"]["all"]["vote"] for seed in seeds],
        "single_models": [
            float(np.mean(seed["arms"][arm]["single_models"]) - np.mean(seed["arms"]["all"]["single_models"]))
            for seed in seeds
        ],
    }
    found = {}
    for name, values in scores.items():
        mean, n = float(np.mean(values)), len(values)
        found[name] = {"per_seed": values, "mean": mean, "sd": None, "low": None, "high": None}
        if n > 1:
            sd = float(np.std(values, ddof=1))
            half = float(stats.t.ppf(0.975, n - 1)) * sd / n**0.5
            found[name] |= {"sd": sd, "low": mean - half, "high": mean + half}
    return found


# -- the page -----------------------------------------------------------------------------------------------


def page(results: dict[str, Any]) -> str:
    """README.md's text."""
    seeds, environment = results["seeds"], results["environment"]
    synthetic = (
        "**SYNTHETIC data: these numbers say nothing about real images.**\n\n"
        if "SYNTHETIC" in results["data"]["name"]
        else ""
    )
    share = np.mean([seed["n_left_out"] for seed in seeds]) / results["data"]["n_train"]
    lines = [
        "# Does leaving out likely label errors help?",
        "",
        f"{synthetic}Made by [clean.py](clean.py) from [results.json](results.json). `{results['config']}` on "
        f"{results['data']['n_train']:,} {results['data']['name']} images, {results['n_splits']} folds, {results['epochs']} epochs, "
        f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}. The likely label errors, {100 * share:.1f} % of the images, are those that "
        "`label_issues.csv` of the run on all images names: confident learning (cleanlab) on out-of-fold probabilities, "
        "without a look at the test set. The third arm leaves out as many images of each class at random.",
        "",
        *verdict(results),
        "",
        "Accuracy on the test set in %, of the soft vote of the folds' models, and the mean of these models; in brackets "
        "on how many test images only this arm is right, on how many only “all”, and the p of McNemar's exact test:",
        "",
        "| seed | left out | " + " | ".join(f"{arm}: vote | models" for arm in ARMS) + " |",
        "|---:|---:|" + "---:|" * 2 * len(ARMS),
    ]
    for seed in seeds:
        cells = [str(seed["seed"]), f"{seed['n_left_out']:,}"]
        for arm in ARMS:
            scores = seed["arms"][arm]
            vote = f"{100 * scores['vote']:.2f}"
            if test := seed["mcnemar"].get(arm):
                vote += f" ({test['only_a']}, {test['only_b']}, p = {test['p']:.2g})"
            cells += [vote, f"{100 * np.mean(scores['single_models']):.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    classes = {
        name: np.mean([seed["left_out_by_class"][name] for seed in seeds]) for name in seeds[0]["left_out_by_class"]
    }
    own = {arm: np.mean([seed["arms"][arm]["validation_of_its_own_images"] for seed in seeds]) for arm in ARMS}
    held_out = ", ".join(f"{arm} {100 * accuracy:.2f}" for arm, accuracy in own.items())
    lines += [
        "",
        "Left out per class, mean over the seeds: "
        + ", ".join(f"{name} {n:.0f}" for name, n in sorted(classes.items(), key=lambda item: -item[1]))
        + ".",
        "",
        "Held-out scores of the arms are not compared: each holds out other images, and leaving out what a model gets "
        "wrong raises them whatever it does for new images "
        f"(here {held_out} %). "
        "The test set was labelled as the training images were, so that a model that has learnt to "
        "label otherwise is counted wrong where the test labels err in the same way.",
        "",
        f"{environment['device']}, {environment['precision']}; "
        + ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
        + f"; commit {environment['commit']}.",
    ]
    return "\n".join(lines) + "\n"


def verdict(results: dict[str, Any]) -> list[str]:
    """The conclusions from the differences, by arm."""
    lines = []
    for arm, found in results["differences"].items():
        parts = []
        for name, what in (("vote", "the vote"), ("single_models", "the single models")):
            d = found[name]
            text = f"{what} {100 * d['mean']:+.2f} points"
            if len(d["per_seed"]) == 2:
                text += f" (of each seed {' and '.join(f'{100 * value:+.2f}' for value in d['per_seed'])})"
            elif d["low"] is not None:
                text += f" (95 % t-interval over the seeds {100 * d['low']:+.2f} to {100 * d['high']:+.2f})"
            parts.append(text)
        lines.append(f"- **{arm}** ({ARMS[arm]}) minus all: {', '.join(parts)}.")
    against = [s["arms"]["cleaned"]["vote"] - s["arms"]["random"]["vote"] for s in results["seeds"]]
    lines.append(
        f"- **cleaned** minus random, which tells cleaning from fewer images: the vote {100 * np.mean(against):+.2f} "
        "points."
    )
    d = results["differences"]["cleaned"]["vote"]
    if len(d["per_seed"]) < 3:
        lines.append("- **No effect is shown**: one or two seeds say nothing about how much of this is chance.")
    elif d["low"] > 0:
        lines.append("- **Leaving them out helps**: the interval of the vote, over seeds on one test set, is above 0.")
    elif d["high"] < 0:
        lines.append("- **Leaving them out harms**: the interval of the vote, over seeds on one test set, is below 0.")
    else:
        lines.append("- **No effect is shown**: the interval of the vote, over seeds on one test set, holds 0.")
    return lines


if __name__ == "__main__":
    main()
