"""Finished runs on the same splits, compared pair by pair, from what their folders keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from fmnist_cv.analysis.comparison import ROPE, Comparison, Scores, adjusted, compare_scores, verdict
from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.data.synthetic_images import synthetic_warning
from fmnist_cv.errors import UserError


@dataclass(frozen=True)
class Comparisons:
    """Runs on the same splits, and all pairs of them.

    Attributes:
        runs: of each its name, path, headline's epoch and caveat, mean, sd and interval (corrected; Wilson's for a hold-out),
            and the soft vote's accuracy on the test set.
        pairs: in the runs' order; p-values of each kind of test are adjusted by Holm where there are several pairs.
        remarks: what to know beside the figures, the runs' caveats among it.
        sentence: the finding in plain words.
    """

    runs: list[dict[str, Any]]
    pairs: list[Comparison]
    remarks: list[str]
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"pairs": [asdict(pair) | {"sentence": pair.sentence} for pair in self.pairs]}


def compare_runs(runs: Sequence[CrossValidationResult | str | Path], rope: float = ROPE) -> Comparisons:
    """Compare finished runs pair by pair. Their images are not needed.

    A run is compared as a procedure, at its headline's epoch: what it does with the training part, such as choosing the
    epoch on an inner hold-out, is its own affair.

    Args:
        runs: two or more runs on the same splits, or their folders.
        rope: differences up to this share of the images do not matter.

    Raises:
        UserError: a run that is not there or unfinished, the same run twice, other data, other splits, or a region of
            practical equivalence that is none.
    """
    if not 0 < rope < 1:
        raise UserError(
            f"the region of practical equivalence is {100 * rope:g} points; it must be more than 0, e.g. 0.5"
        )
    found = [run if isinstance(run, CrossValidationResult) else CrossValidationResult.load(run) for run in runs]
    if len(found) < 2:
        raise UserError(
            f"comparing takes two runs or more, got {len(found)}; give their folders, lightning_logs/<experiment>/<run>"
        )
    for i, run in enumerate(found):
        if any(run.path.resolve() == other.path.resolve() for other in found[:i]):
            raise UserError(f"run {run.path} is given twice; give two different runs")
    names = _names(found)
    for run, name in zip(found[1:], names[1:], strict=True):
        _check_same_data(found[0], names[0], run, name)
        _check_same_splits(found[0], names[0], run, name)
    scores = [_scores(run, name) for run, name in zip(found, names, strict=True)]
    pairs = adjusted([compare_scores(a, b, rope) for a, b in combinations(scores, 2)])
    return Comparisons(
        [_describe(run, name) for run, name in zip(found, names, strict=True)],
        pairs,
        _remarks(found, scores, pairs),
        pairs[0].sentence if len(pairs) == 1 else verdict(scores, pairs),
    )


def _scores(run: CrossValidationResult, name: str) -> Scores:
    probabilities, labels = run.out_of_fold()[0], run.labels
    held_out = ~np.isnan(probabilities[:, 0])
    right = probabilities[held_out].argmax(1) == labels[held_out]
    ratio = float(np.mean([fold["n_validation"] / fold["n_train"] for fold in run.summary["folds"]]))
    test = None
    if run.test_labels is not None and (votes := run.test_probabilities()) is not None:
        test = votes.mean(0, dtype=np.float64).argmax(1) == run.test_labels
    return Scores(name, run.accuracies, ratio, right, test, run.summary["cv"]["n_repeats"])


def _names(runs: list[CrossValidationResult]) -> list[str]:
    """The shortest names that tell the runs apart: their experiments', with the run's, or their paths."""
    experiments = [run.summary["experiment"] for run in runs]
    named = [f"{run.summary['experiment']}/{run.summary['run']}" for run in runs]
    paths = [str(run.path) for run in runs]
    return next(names for names in (experiments, named, paths) if names is paths or len({*names}) == len(runs))


def _check_same_data(a: CrossValidationResult, a_name: str, b: CrossValidationResult, b_name: str) -> None:
    ours, theirs = a.summary["data"], b.summary["data"]
    if ours["fingerprint"] != theirs["fingerprint"]:
        raise UserError(
            f"{a_name} and {b_name} were made on different images: {_data(ours)} and {_data(theirs)}; "
            "compare runs on the same data"
        )
    fingerprints = [data.get("test_fingerprint") for data in (ours, theirs)]  # of older runs only the labels are known
    labels = [run.test_labels for run in (a, b)]
    if (None not in fingerprints and fingerprints[0] != fingerprints[1]) or (
        labels[0] is not None and labels[1] is not None and not np.array_equal(labels[0], labels[1])
    ):
        raise UserError(f"{a_name} and {b_name} were scored on different test images; compare runs on the same data")


def _data(data: dict[str, Any]) -> str:
    return f"{data['name']} ({data['n_train']:,} training images, fingerprint {data['fingerprint']})"


def _check_same_splits(a: CrossValidationResult, a_name: str, b: CrossValidationResult, b_name: str) -> None:
    """Refuse runs whose folds hold out, or may train on, other images."""
    ours, theirs = (run.split_arrays for run in (a, b))
    folds = [{key for key in arrays if key.endswith("_validation")} for arrays in (ours, theirs)]
    reason = None
    if folds[0] != folds[1]:
        reason = f"{len(folds[0])} and {len(folds[1])} folds"
    else:
        for key in sorted(folds[0]):
            place = key.removesuffix("_validation").replace("_", " ")
            if not np.array_equal(ours[key], theirs[key]):
                reason = f"{place} holds out other images"
            elif not np.array_equal(_open_to_training(ours, key), _open_to_training(theirs, key)):
                reason = f"{place} trains on other images"
            if reason is not None:
                break
    if reason is None:
        return
    settings = [
        {"seed": run.summary["seed"], **{f"cv.{key}": value for key, value in run.summary["cv"].items()}}
        for run in (a, b)
    ]
    differ = [
        f"{key} {settings[0][key]} and {settings[1][key]}"
        for key in settings[0]
        if key not in ("cv.n_splits", "cv.inner_holdout") and settings[0][key] != settings[1].get(key)
    ]
    raise UserError(
        f"{a_name} and {b_name} were made on different splits: {reason}"
        + (f" ({', '.join(differ)})" if differ else "")
        + "; only scores of the same folds pair up: run both with the same seed and cv settings"
    )


def _open_to_training(arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    """The images of a fold's training part, an inner hold-out among them."""
    name = key.removesuffix("_validation")
    parts = [arrays[part] for part in (f"{name}_train", f"{name}_inner") if part in arrays]
    return np.sort(np.concatenate(parts))


def _describe(run: CrossValidationResult, name: str) -> dict[str, Any]:
    headline, ensemble = run.summary["headline"], run.summary["ensemble"]
    accuracy = headline["accuracy"]
    if accuracy["n"] == 1:
        accuracy = accuracy | dict(zip(("low", "high"), headline["wilson"][0], strict=True))
    return {
        "name": name,
        "path": str(run.path),
        "epoch": headline["epoch"],
        "accuracy": accuracy,
        "caveat": headline["caveat"],
        "test_vote": None if ensemble is None else ensemble[headline["epoch"]]["accuracy"],
    }


def _remarks(runs: list[CrossValidationResult], scores: list[Scores], pairs: list[Comparison]) -> list[str]:
    lines = synthetic_warning(runs[0].summary["data"]["name"], "these differences")
    caveats: dict[str, list[str]] = {}
    for run, score in zip(runs, scores, strict=True):
        if caveat := run.summary["headline"]["caveat"]:
            caveats.setdefault(caveat, []).append(score.name)
    for caveat, names in caveats.items():
        favoured = "" if len(names) == len(runs) else " Against a run without, the comparison is in its favour."
        lines.append(f"Caveat: {', '.join(names)}: {caveat}.{favoured}")
    epochs = {score.name: run.summary["headline"]["epoch"] for run, score in zip(runs, scores, strict=True)}
    if len({*epochs.values()}) > 1:
        best, last = ([name for name, epoch in epochs.items() if epoch == which] for which in ("best", "last"))
        lines.append(
            f"Each run is scored at its own headline: {', '.join(best)} at the best epoch, chosen on an inner hold-out; "
            f"{', '.join(last)} at the last."
        )
    if len(scores[0].accuracies) == 1:
        lines.append(
            "A hold-out has one score, so there is no t-test. McNemar's test on the held-out images decides: it is about "
            "these very models, not about what training them anew would give."
        )
    elif len(scores[0].accuracies) == 2:
        lines.append(
            "Two folds say nothing about how much others would differ, so there is neither an interval nor a t-test. "
            "McNemar's test on the held-out images decides: it is about these very models, not about what training them "
            "anew would give."
        )
    elif any(pair.t_test is None for pair in pairs):
        lines.append(
            "Where all folds differ by the same there is no spread for a t-test; McNemar's test on the held-out images "
            "decides."
        )
    if len(scores[0].accuracies) > 2 and any(np.ptp(score.accuracies) == 0 for score in scores):
        lines.append("A run whose folds all have the same accuracy has no interval: there is no spread to judge by.")
    if scores[0].n_repeats > 1:
        same = (
            "in the others they are the same"
            if runs[0].summary["cv"]["holdout"] is None
            else "each draw holds out others"
        )
        lines.append(f"McNemar's test on the held-out images is of the first repeat: {same}.")
    without = [
        (run, score.name)
        for run, score in zip(runs, scores, strict=True)
        if run.summary["test"] is not None and run.test_labels is None
    ]
    if without:
        lines.append(
            f"Not compared on the test set: {', '.join(name for _, name in without)}, of an older version, without the "
            f"test images' labels. To add them: python -m fmnist_cv.fit --resume {without[0][0].path}"
        )
    if len(pairs) > 1:
        lines.append(
            f"p-values are adjusted by Holm for {len(pairs)} pairs; intervals and chances are each pair's own."
        )
    return lines
