"""Pairwise comparison of finished runs on the same splits, from the files in their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from fmnist_cv.analysis.comparison import ROPE, Comparison, RunScores, adjusted, compare_scores, verdict
from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.analysis.statistics import ScoreSummary, mean_ratio, unequal_folds
from fmnist_cv.data.synthetic_images import synthetic_warning
from fmnist_cv.engine.run_records import DataRecord, Epoch
from fmnist_cv.errors import UserError


class ComparedRun(TypedDict):
    """One of the compared runs.

    `accuracy` has the corrected interval, or Wilson's for a hold-out; `test_vote` is the accuracy of the soft-voting
    ensemble on the test set, None without one.
    """

    name: str
    path: str
    epoch: Epoch
    accuracy: ScoreSummary
    caveat: str | None
    test_vote: float | None


@dataclass(frozen=True)
class Comparisons:
    """Runs on the same splits, and all pairs of them.

    Attributes:
        runs: the runs.
        pairs: in the runs' order; with several pairs, the p-values of each kind of test are adjusted by Holm's method.
        remarks: caveats of the runs and notes on the tests.
        sentence: the result in words.
    """

    runs: list[ComparedRun]
    pairs: list[Comparison]
    remarks: list[str]
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"pairs": [asdict(pair) | {"sentence": pair.sentence} for pair in self.pairs]}


def compare_runs(runs: Sequence[CrossValidationResult | str | Path], rope: float = ROPE) -> Comparisons:
    """Compare finished runs pair by pair. Their images are not needed.

    A run is compared as a procedure, at its headline epoch: choosing the epoch on an inner hold-out of the training part
    belongs to the procedure.

    Args:
        runs: two or more runs on the same splits, or their folders.
        rope: half-width of the region of practical equivalence, as a difference of accuracies between 0 and 1.

    Raises:
        UserError: a run is missing, unfinished or given twice, the runs have different data or splits, or `rope` is out of
            range.
    """
    if not 0 < rope < 1:
        raise UserError(
            f"the region of practical equivalence is {100 * rope:g} points; it must be between 0 and 100, e.g. 0.5"
        )
    found = [run if isinstance(run, CrossValidationResult) else CrossValidationResult.load(run) for run in runs]
    if len(found) < 2:
        raise UserError(
            f"a comparison needs at least two runs, got {len(found)}; give their folders, lightning_logs/<experiment>/<run>"
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


def _scores(run: CrossValidationResult, name: str) -> RunScores:
    probabilities, labels = run.out_of_fold()[0], run.labels
    held_out = ~np.isnan(probabilities[:, 0])
    correct = probabilities[held_out].argmax(1) == labels[held_out]
    ratio = mean_ratio(run.summary["folds"])
    test = None
    if run.test_labels is not None and (per_fold := run.test_probabilities()) is not None:
        test = per_fold.mean(0, dtype=np.float64).argmax(1) == run.test_labels
    return RunScores(name, run.accuracies, ratio, correct, test, run.summary["cv"]["n_repeats"])


def _names(runs: list[CrossValidationResult]) -> list[str]:
    """The shortest unique names: experiment, experiment/run, or path."""
    experiments = [run.summary["experiment"] for run in runs]
    named = [f"{run.summary['experiment']}/{run.summary['run']}" for run in runs]
    paths = [str(run.path) for run in runs]
    return next(names for names in (experiments, named, paths) if names is paths or len({*names}) == len(runs))


def _check_same_data(a: CrossValidationResult, a_name: str, b: CrossValidationResult, b_name: str) -> None:
    ours, theirs = a.summary["data"], b.summary["data"]
    # weights of training images belong to a run as other settings of its training do
    if len({data.get("unweighted_fingerprint", data["fingerprint"]) for data in (ours, theirs)}) > 1:
        raise UserError(
            f"{a_name} and {b_name} were made on different images: {_data(ours)} and {_data(theirs)}; "
            "compare runs on the same data"
        )
    fingerprints = {ours["test_fingerprint"], theirs["test_fingerprint"]} - {None}  # older runs have the labels alone
    labels = [labels for run in (a, b) if (labels := run.test_labels) is not None]
    if len(fingerprints) == 2 or (len(labels) == 2 and not np.array_equal(labels[0], labels[1])):
        raise UserError(f"{a_name} and {b_name} were scored on different test images; compare runs on the same data")


def _data(data: DataRecord) -> str:
    return f"{data['name']} ({data['n_train']:,} training images, fingerprint {data['fingerprint']})"


def _check_same_splits(a: CrossValidationResult, a_name: str, b: CrossValidationResult, b_name: str) -> None:
    """Raise where the runs' folds hold out, or may train on, different images."""
    ours, theirs = (run.split_arrays for run in (a, b))
    folds = [{key for key in arrays if key.endswith("_validation")} for arrays in (ours, theirs)]
    reason = None
    if folds[0] != folds[1]:
        reason = f"{len(folds[0])} and {len(folds[1])} folds"
    else:
        for key in sorted(folds[0]):
            place = key.removesuffix("_validation").replace("_", " ")
            if not np.array_equal(ours[key], theirs[key]):
                reason = f"{place} holds out different images"
            elif not np.array_equal(_open_to_training(ours, key), _open_to_training(theirs, key)):
                reason = f"{place} trains on different images"
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
        if key not in ("cv.folds_per_repeat", "cv.inner_holdout") and settings[0][key] != settings[1].get(key)
    ]
    raise UserError(
        f"{a_name} and {b_name} were made on different splits: {reason}"
        + (f" ({', '.join(differ)})" if differ else "")
        + "; scores are paired by fold: run both with the same seed and cv settings"
    )


def _open_to_training(arrays: dict[str, np.ndarray], key: str) -> np.ndarray:
    """The images of a fold's training part, including an inner hold-out."""
    name = key.removesuffix("_validation")
    parts = [arrays[part] for part in (f"{name}_train", f"{name}_inner") if part in arrays]
    return np.sort(np.concatenate(parts))


def _describe(run: CrossValidationResult, name: str) -> ComparedRun:
    headline, ensemble = run.summary["headline"], run.summary["ensemble"]
    accuracy = headline["accuracy"]
    if accuracy["n"] == 1:
        low, high = headline["wilson"][0]
        accuracy = {**accuracy, "low": low, "high": high}
    return {
        "name": name,
        "path": str(run.path),
        "epoch": headline["epoch"],
        "accuracy": accuracy,
        "caveat": headline["caveat"],
        "test_vote": None if ensemble is None else ensemble[headline["epoch"]]["accuracy"],
    }


# -- remarks ------------------------------------------------------------------------------------------------


def _remarks(runs: list[CrossValidationResult], scores: list[RunScores], pairs: list[Comparison]) -> list[str]:
    lines = [
        *synthetic_warning(runs[0].summary["data"]["name"], "these differences"),
        *_caveats(runs, scores),
        *_epochs(runs, scores),
        *_missing_t_tests(scores, pairs),
    ]
    weighted = [score.name for run, score in zip(runs, scores, strict=True) if run.summary["sampling"] is not None]
    if 0 < len(weighted) < len(runs):
        lines.append(
            f"Training images are drawn by weight in {', '.join(weighted)}, and taken once an epoch in the others."
        )
    held_out, n_train = runs[0].summary["held_out"], runs[0].summary["data"]["n_train"]
    if held_out is not None and held_out < n_train:
        lines.append(f"All scores stand on the {held_out:,} of {n_train:,} training images that some fold holds out.")
    if scores[0].n_repeats > 1:
        in_each = ~np.isnan(runs[0].out_of_fold()[:, :, 0])
        which = "the same images" if (in_each == in_each[0]).all() else "wholly or partly other images"
        lines.append(
            f"McNemar's test on the held-out images uses the first repeat: the other repeats hold out {which}."
        )
    if (
        any(pair.t_test is not None for pair in pairs)
        and (caveat := unequal_folds(runs[0].summary["folds"])) is not None
    ):
        lines.append(caveat)
    lines += _missing_test_labels(runs, scores)
    if len(pairs) > 1:
        lines.append(
            f"p-values are adjusted by Holm's method for {len(pairs)} pairs; intervals and posterior probabilities are not."
        )
    return lines


def _caveats(runs: list[CrossValidationResult], scores: list[RunScores]) -> list[str]:
    names_by_caveat: dict[str, list[str]] = {}
    for run, score in zip(runs, scores, strict=True):
        if caveat := run.summary["headline"]["caveat"]:
            names_by_caveat.setdefault(caveat, []).append(score.name)
    lines = []
    for caveat, names in names_by_caveat.items():
        favoured = (
            "" if len(names) == len(runs) else " The comparison is biased in favour of the runs with this caveat."
        )
        lines.append(f"Caveat: {', '.join(names)}: {caveat}.{favoured}")
    return lines


def _epochs(runs: list[CrossValidationResult], scores: list[RunScores]) -> list[str]:
    epochs = {score.name: run.summary["headline"]["epoch"] for run, score in zip(runs, scores, strict=True)}
    best, last = ([name for name, epoch in epochs.items() if epoch == which] for which in ("best", "last"))
    if not best or not last:
        return []
    return [
        f"Each run is scored at its headline epoch: {', '.join(best)} at the best epoch, chosen on an inner hold-out; "
        f"{', '.join(last)} at the last epoch."
    ]


def _missing_t_tests(scores: list[RunScores], pairs: list[Comparison]) -> list[str]:
    n_folds = len(scores[0].accuracies)
    mcnemar_decides = (
        "McNemar's test on the held-out images decides: it compares these trained models, not what training again would "
        "give."
    )
    if n_folds == 1:
        return [f"A hold-out has one score, so there is no t-test. {mcnemar_decides}"]
    if n_folds == 2:
        return [
            "Two folds give no reliable estimate of the spread, so there is neither an interval nor a t-test. "
            + mcnemar_decides
        ]
    lines = []
    if any(pair.t_test is None for pair in pairs):
        lines.append(
            "Where all folds differ by the same amount there is no spread for a t-test; McNemar's test on the held-out "
            "images decides."
        )
    if any(np.ptp(score.accuracies) == 0 for score in scores):
        lines.append(
            "A run whose folds all have the same accuracy has no interval: there is no spread to estimate it from."
        )
    return lines


def _missing_test_labels(runs: list[CrossValidationResult], scores: list[RunScores]) -> list[str]:
    without = [
        (run.path, score.name)
        for run, score in zip(runs, scores, strict=True)
        if run.summary["test"] is not None and run.test_labels is None
    ]
    if not without:
        return []
    return [
        f"Not compared on the test set: {', '.join(name for _, name in without)}, made by an older version that did not "
        f"store the test labels. To add them: python -m fmnist_cv.fit --resume {without[0][0]}"
    ]
