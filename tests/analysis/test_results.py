"""What a run reports is what its folds' predictions say, and the test set decides none of it."""

from __future__ import annotations

import time
from itertools import count
from math import inf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import users_modules
from running import outcome, raw_arrays, read_json
from scipy import stats

from fmnist_cv import CrossValidationResult, DenseNetwork, SyntheticDataModule, cross_validate, cross_validation
from fmnist_cv.analysis.statistics import wilson_interval
from fmnist_cv.analysis.tables import untrained_lines
from fmnist_cv.analysis.training_time import shared_seconds
from fmnist_cv.engine.scoring import classification_report
from fmnist_cv.engine.tensorboard import confusion_figure
from fmnist_cv.errors import UserError

EPOCHS = ("last", "best")


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def data_of(config: dict[str, Any]) -> SyntheticDataModule:
    settings = config["data"]["init_args"]
    return SyntheticDataModule(n_train=settings["n_train"], n_test=settings["n_test"])


# -- three folds --------------------------------------------------------------------------------------------


def test_out_of_fold_predictions_are_the_folds_put_together(standard: Path, tiny: dict[str, Any]) -> None:
    out_of_fold, splits = arrays(standard / "out_of_fold.npz"), arrays(standard / "splits.npz")
    labels = data_of(tiny).train_images.labels.numpy()
    np.testing.assert_array_equal(out_of_fold["labels"], labels)
    seen = np.zeros(300, dtype=int)
    for fold in range(3):
        probabilities, metrics = (
            arrays(standard / f"fold_{fold}" / "probabilities.npz"),
            read_json(standard / f"fold_{fold}" / "metrics.json"),
        )
        validation = splits[f"repeat_0_fold_{fold}_validation"]
        seen[validation] += 1
        for epoch in EPOCHS:
            assert out_of_fold[epoch].shape == (1, 300, 10) and out_of_fold[epoch].dtype == np.float32
            np.testing.assert_array_equal(out_of_fold[epoch][0, validation], probabilities[f"{epoch}_validation"])
            right = probabilities[f"{epoch}_validation"].argmax(1) == labels[validation]
            assert metrics[epoch]["validation"]["accuracy"] == pytest.approx(right.mean())
            own = probabilities[f"{epoch}_validation"][np.arange(len(validation)), labels[validation]]
            assert metrics[epoch]["validation"]["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-5)
    assert (seen == 1).all()
    for epoch in EPOCHS:
        np.testing.assert_allclose(out_of_fold[epoch].sum(2), 1, atol=1e-5)


def test_the_last_epochs_curve_ends_in_the_score(standard: Path) -> None:
    for fold in range(3):
        metrics = read_json(standard / f"fold_{fold}" / "metrics.json")
        history, scores = metrics["history"], [h["val/accuracy"] for h in metrics["history"]]
        assert len(history) == metrics["epochs"] == 3
        assert history[-1]["val/loss"] == pytest.approx(metrics["last"]["validation"]["loss"], rel=1e-6)
        assert history[-1]["val/accuracy"] == pytest.approx(metrics["last"]["validation"]["accuracy"])
        assert metrics["best_epoch"] == scores.index(max(scores))  # the first of equals
        assert metrics["best"]["validation"]["accuracy"] == pytest.approx(max(scores))
        assert (metrics["n_train"], metrics["n_inner"], metrics["n_validation"]) == (200, 0, 100)
        assert not metrics["stopped_early"]


def test_mean_sd_and_interval_by_hand(standard: Path) -> None:
    """Nadeau and Bengio: s sqrt(1/3 + 100/200), and t with 2 degrees of freedom."""
    results = read_json(standard / "results.json")
    folds = [read_json(standard / f"fold_{fold}" / "metrics.json") for fold in range(3)]
    for epoch in EPOCHS:
        for metric in ("accuracy", "loss"):
            scores = np.array([fold[epoch]["validation"][metric] for fold in folds])
            half = stats.t.ppf(0.975, 2) * scores.std(ddof=1) * sqrt(1 / 3 + 1 / 2)
            expected = {
                "mean": scores.mean(),
                "sd": scores.std(ddof=1),
                "low": max(0.0, scores.mean() - half),
                "high": min(1.0 if metric == "accuracy" else inf, scores.mean() + half),
                "n": 3,
            }
            assert results["validation"][epoch][metric] == pytest.approx(expected)
    assert results["headline"] == {
        "epoch": "last",
        "accuracy": results["validation"]["last"]["accuracy"],
        "caveat": None,
        "wilson": [list(wilson_interval(round(fold["last"]["validation"]["accuracy"] * 100), 100)) for fold in folds],
    }
    gaps = [fold["best"]["validation"]["accuracy"] - fold["last"]["validation"]["accuracy"] for fold in folds]
    assert results["optimism"]["per_fold"] == pytest.approx(gaps)
    assert results["optimism"]["accuracy"] == pytest.approx(np.mean(gaps))


def test_the_ensemble_is_the_mean_of_the_folds_probabilities(standard: Path, tiny: dict[str, Any]) -> None:
    results, test = read_json(standard / "results.json"), data_of(tiny).test_images
    assert test is not None
    for epoch in EPOCHS:
        each = [arrays(standard / f"fold_{fold}" / "probabilities.npz")[f"{epoch}_test"] for fold in range(3)]
        mean = np.mean(np.stack(each).astype(np.float64), axis=0)
        right = int((mean.argmax(1) == test.labels.numpy()).sum())
        ensemble = results["ensemble"][epoch]
        assert ensemble == {
            "accuracy": right / 100,
            "wilson": pytest.approx(wilson_interval(right, 100)),
            "n_models": 3,
        }
        rights = [int((p.argmax(1) == test.labels.numpy()).sum()) for p in each]
        accuracy = results["test"][epoch]["accuracy"]
        assert accuracy["per_fold"] == pytest.approx([right / 100 for right in rights])
        assert accuracy["mean"] == pytest.approx(np.mean(rights) / 100)
        assert accuracy["sd"] == pytest.approx(np.std(rights, ddof=1) / 100)
        assert accuracy["wilson_per_fold"] == [pytest.approx(wilson_interval(right, 100)) for right in rights]
        if epoch == "last":
            report, expected = (
                results["test_report"],
                classification_report(torch.from_numpy(mean), test.labels, test.class_names),
            )
            assert report["confusion_matrix"] == expected["confusion_matrix"]
            assert [report[key] for key in ("nll", "brier")] == pytest.approx([expected["nll"], expected["brier"]])


def test_the_out_of_fold_report_is_of_all_training_images(standard: Path) -> None:
    report, out_of_fold = (
        read_json(standard / "results.json")["out_of_fold_report"],
        arrays(standard / "out_of_fold.npz"),
    )
    predicted = out_of_fold["last"][0].argmax(1)
    matrix = np.zeros((10, 10), dtype=int)
    np.add.at(matrix, (out_of_fold["labels"], predicted), 1)
    assert report["confusion_matrix"] == matrix.tolist()
    assert report["n"] == 300
    assert report["accuracy"] == pytest.approx((predicted == out_of_fold["labels"]).mean())


def test_the_best_model_is_the_best_folds_and_predicts_what_was_stored(standard: Path, tiny: dict[str, Any]) -> None:
    results = read_json(standard / "results.json")
    accuracies = [fold["last"]["validation"]["accuracy"] for fold in results["folds"]]
    best = int(np.argmax(accuracies))
    link = standard / "best.ckpt"
    assert link.is_symlink() and not link.readlink().is_absolute()
    assert link.resolve() == (standard / f"fold_{best}" / "last.ckpt").resolve()
    assert results["best_fold"]["name"] == f"fold_{best}"
    assert results["best_fold"]["validation_accuracy"] == accuracies[best]
    assert (standard / results["best_fold"]["checkpoint"]).resolve() == link.resolve()

    data = data_of(tiny)
    model = DenseNetwork.load_from_checkpoint(link, map_location="cpu", weights_only=True, **tiny["model"]["init_args"])
    data.load_state_dict(torch.load(link, weights_only=True)["SyntheticDataModule"])
    validation = torch.from_numpy(arrays(standard / "splits.npz")[f"repeat_0_fold_{best}_validation"].astype(np.int64))
    with torch.inference_mode():
        probabilities = model.eval()(data.prepare(data.train_images.images[validation])).softmax(1)
    stored = arrays(standard / f"fold_{best}" / "probabilities.npz")["last_validation"]
    np.testing.assert_allclose(probabilities, stored, atol=1e-6)


def test_the_report_shows_the_tables_and_says_synthetic(standard: Path) -> None:
    report, results = (standard / "report.md").read_text(), read_json(standard / "results.json")
    assert report.startswith("# tiny / standard\n")
    assert "SYNTHETIC" in report
    for fold in results["folds"]:
        assert f"| {fold['name']} | 3 | {100 * fold['last']['validation']['accuracy']:.2f} |" in report
    accuracy = results["headline"]["accuracy"]
    assert f"mean {100 * accuracy['mean']:.2f}, sd {100 * accuracy['sd']:.2f}" in report
    for name, row in zip(
        results["data"]["class_names"], results["out_of_fold_report"]["confusion_matrix"], strict=True
    ):
        assert f"| {name} | {' | '.join(map(str, row))} |" in report


# -- other ways to split ------------------------------------------------------------------------------------


def test_an_inner_holdout_chooses_the_epoch_and_is_never_scored(quick: dict[str, Any]) -> None:
    quick["cv"]["inner_holdout"] = 0.25
    quick["model"]["init_args"]["optimizer"] = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}}
    quick["trainer"]["max_epochs"] = 4
    result = cross_validate(quick)
    splits, data = arrays(result.path / "splits.npz"), data_of(quick)
    labels = data.train_images.labels
    assert result.summary["headline"]["epoch"] == "best"
    assert not np.isnan(result.out_of_fold()).any()
    for fold in range(3):
        train, inner, validation = (splits[f"repeat_0_fold_{fold}_{p}"] for p in ("train", "inner", "validation"))
        metrics = read_json(result.path / f"fold_{fold}" / "metrics.json")
        assert (metrics["n_train"], metrics["n_inner"], metrics["n_validation"]) == (150, 50, 100)
        assert not set(inner) & (set(train) | set(validation))
        probabilities = arrays(result.path / f"fold_{fold}" / "probabilities.npz")
        assert len(probabilities["best_validation"]) == 100  # the fold, without the inner part
        np.testing.assert_array_equal(result.out_of_fold("best")[0, validation], probabilities["best_validation"])

        # the curve is of the inner images; the score of the others
        weights = torch.load(result.path / f"fold_{fold}" / "last.ckpt", weights_only=True)["state_dict"]
        dense = [weights[f"layers.{i}.{part}"] for i in (1, 4) for part in ("weight", "bias")]
        pixels = data.train_images.images.flatten(1).float() / 255
        logits = F.linear(F.linear(pixels, dense[0], dense[1]).relu(), dense[2], dense[3])
        for indices, stored in (
            (inner, metrics["history"][-1]["val/loss"]),
            (validation, metrics["last"]["validation"]["loss"]),
        ):
            assert stored == pytest.approx(float(F.cross_entropy(logits[indices], labels[indices])), rel=1e-5)
        scores = [epoch["val/accuracy"] for epoch in metrics["history"]]
        assert metrics["best_epoch"] == scores.index(max(scores))
    assert list(result.accuracies) == [fold["best"]["validation"]["accuracy"] for fold in result.summary["folds"]]
    best = result.path / "best.ckpt"
    assert best.resolve().name == "best.ckpt" and best.resolve().parent.name.startswith("fold_")


def test_a_holdout_is_one_score_without_spread(quick: dict[str, Any]) -> None:
    quick["cv"]["holdout"] = "first:100"
    result = cross_validate(quick)
    out_of_fold = result.out_of_fold()
    assert out_of_fold.shape == (1, 300, 10)
    assert not np.isnan(out_of_fold[0, :100]).any() and np.isnan(out_of_fold[0, 100:]).all()
    accuracy = result.summary["headline"]["accuracy"]
    assert (accuracy["n"], accuracy["sd"], accuracy["low"], accuracy["high"]) == (1, None, None, None)
    assert result.summary["out_of_fold_report"]["n"] == 100
    assert result.summary["test"]["last"]["accuracy"]["sd"] is None
    assert result.mean == pytest.approx((out_of_fold[0, :100].argmax(1) == result.labels[:100]).mean())
    low, high = wilson_interval(round(result.mean * 100), 100)
    shown = f"{100 * result.mean:.2f} (95 % confidence interval {100 * low:.2f} to {100 * high:.2f})"
    assert f"Validation accuracy, last epoch: {shown}\n" in (result.path / "report.md").read_text()


def test_repeats_draw_the_folds_anew(quick: dict[str, Any]) -> None:
    quick["cv"] |= {"n_splits": 2, "n_repeats": 2}
    result = cross_validate(quick)
    names = ["repeat_0_fold_0", "repeat_0_fold_1", "repeat_1_fold_0", "repeat_1_fold_1"]
    assert [fold["name"] for fold in result.summary["folds"]] == names
    assert len({fold["seed"] for fold in result.summary["folds"]}) == 4
    splits = arrays(result.path / "splits.npz")
    assert not np.array_equal(splits["repeat_0_fold_0_validation"], splits["repeat_1_fold_0_validation"])
    out_of_fold = result.out_of_fold()
    assert out_of_fold.shape == (2, 300, 10) and not np.isnan(out_of_fold).any()
    for name in names:
        repeat, validation = int(name[7]), splits[f"{name}_validation"]
        stored = arrays(result.path / name / "probabilities.npz")["last_validation"]
        np.testing.assert_array_equal(out_of_fold[repeat, validation], stored)
    scores = result.accuracies
    half = stats.t.ppf(0.975, 3) * scores.std(ddof=1) * sqrt(1 / 4 + 1)
    accuracy = result.summary["headline"]["accuracy"]
    possible = max(0.0, scores.mean() - half), min(1.0, scores.mean() + half)
    assert (accuracy["low"], accuracy["high"]) == pytest.approx(possible)
    assert result.summary["out_of_fold_report"]["n"] == 600


def test_data_without_a_test_set_have_no_test_scores(quick: dict[str, Any], tmp_path: Path) -> None:
    images = data_of(quick).train_images
    np.savez(tmp_path / "own.npz", images=images.images.numpy(), labels=images.labels.numpy())
    quick["data"] = {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"path": str(tmp_path / "own.npz")}}
    result = cross_validate(quick, refit=True)
    assert result.summary["test"] is result.summary["ensemble"] is result.summary["test_report"] is None
    assert result.test_accuracies is None
    assert result.summary["data"]["name"] == "own" and result.summary["data"]["n_test"] == 0
    assert "Test" not in (result.path / "report.md").read_text()
    assert "test_accuracy" not in result.summary["refit"]


def test_a_stop_on_the_scored_images_carries_a_caveat(quick: dict[str, Any]) -> None:
    quick["cv"] |= {"holdout": 0.3}
    quick["selection"] = {"patience": 1}
    assert "optimistic" in cross_validate(quick, run="flattering").summary["headline"]["caveat"]
    quick["cv"] |= {"inner_holdout": 0.2}
    assert cross_validate(quick, run="honest").summary["headline"]["caveat"] is None


# -- a final model ------------------------------------------------------------------------------------------


def test_refit_trains_on_all_images_for_the_folds_median_best_epoch(quick: dict[str, Any]) -> None:
    quick["model"]["init_args"]["optimizer"] = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.03}}
    quick["trainer"]["max_epochs"] = 5
    result = cross_validate(quick, run="refit")
    assert result.summary["refit"] is None
    result = cross_validate(quick, resume="refit", refit=True)
    epochs = round(float(np.median([fold["best_epoch"] + 1 for fold in result.summary["folds"]])))
    refit = result.summary["refit"]
    assert (refit["epochs"], refit["n_train"]) == (epochs, 300)
    checkpoint = torch.load(result.path / refit["checkpoint"], weights_only=True)
    assert checkpoint["epoch"] == epochs - 1 and checkpoint["global_step"] == epochs * 10  # of 32 images and less

    test = data_of(quick).test_images
    assert test is not None
    probabilities = arrays(result.path / "refit" / "probabilities.npz")
    assert list(probabilities) == ["last_test", "best_test"]
    right = int((probabilities["last_test"].argmax(1) == test.labels.numpy()).sum())
    assert refit["test_accuracy"] == pytest.approx(right / 100)
    assert refit["wilson"] == pytest.approx(wilson_interval(right, 100))
    assert (
        f"Refit on all 300 training images for {epochs} epochs: test accuracy"
        in (result.path / "report.md").read_text()
    )
    seeds = {fold["seed"] for fold in result.summary["folds"]}
    assert read_json(result.path / "refit" / "metrics.json")["seed"] not in seeds


def test_refit_does_without_what_needs_held_out_images(quick: dict[str, Any]) -> None:
    quick["selection"] = {"patience": 1}
    quick["cv"]["holdout"] = 0.3
    quick["trainer"]["callbacks"] = [
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"monitor": "val/accuracy"}},
        {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val/loss"}},
    ]
    assert cross_validate(quick, refit=True).summary["refit"]["n_train"] == 300


# -- the test set -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [True, False])
def test_a_fold_has_no_test_set_while_it_trains(
    quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """The check before the run reads it, so that a broken file is found early; a fold gets it for its scores only.

    Folds in this process share what was read; one in a process of its own reads for itself.
    """
    if not shared:
        monkeypatch.setattr(cross_validation, "Loaded", lambda *_: None)
    quick["model"]["class_path"] = "users_modules.TellsWhenItTrains"
    quick["data"]["class_path"] = "users_modules.TellsWhenItLoads"
    users_modules.EVENTS.clear()
    cross_validate(quick)
    events = " ".join(users_modules.EVENTS).split("fit began")
    assert len(events) == 5  # of the sanity check and of three folds
    for fold in events[2:]:
        training, after = fold.split("fit ended")
        assert "test" not in training
        assert after.count("load test") == (0 if shared else 1)
    for part in ("load train", "load test"):
        assert users_modules.EVENTS.count(part) == (1 if shared else 4)


def test_other_test_labels_change_test_scores_alone(quick: dict[str, Any]) -> None:
    quick["data"]["class_path"] = "users_modules.OtherTestLabels"
    quick["selection"] = {"patience": 1}
    runs = []
    for shift in (0, 3):
        quick["data"]["init_args"]["shift"] = shift
        runs.append(outcome(cross_validate(quick, run=f"shift_{shift}", refit=True).path))
    assert runs[0]["results"]["test"] != runs[1]["results"]["test"]
    for run in runs:
        for key in ("test", "ensemble", "test_report", "refit"):
            del run["results"][key]
        del run["out_of_fold"]["test_labels"], run["results"]["data"]["test_fingerprint"]
        for fold in [*run["folds"].values(), *run["results"]["folds"]]:
            del fold["last"]["test"], fold["best"]["test"]
    assert runs[0] == runs[1]


# -- reading a run ------------------------------------------------------------------------------------------


def test_a_result_is_read_back_from_its_folder(standard: Path) -> None:
    result = CrossValidationResult.load(standard)
    assert result.summary == read_json(standard / "results.json")
    assert result.path == standard


def test_the_same_experiment_gives_the_same_bits_again(standard: Path, tiny: dict[str, Any]) -> None:
    tiny["trainer"]["logger"] = False
    again = outcome(cross_validate(tiny, run="again").path)
    assert again == outcome(standard)
    tiny["seed"] = 1
    other = cross_validate(tiny, run="other").path
    assert raw_arrays(other / "out_of_fold.npz")["last"] != again["out_of_fold"]["last"]


def test_time_side_by_side_is_shared_out() -> None:
    """Two folds train from 0 to 4; then one scores until 6 while the other trains: half of that time is training."""
    first, second = [[0.0, 4.0, 10], [6.0, 8.0, 10]], [[0.0, 6.0, 10], [6.0, 8.0, 10]]
    assert shared_seconds([first, second]) == pytest.approx(4 + 1 + 2)
    assert shared_seconds([first]) == pytest.approx(6)
    assert shared_seconds([[[0.0, 2.0, 1]], [[5.0, 6.0, 1]]]) == pytest.approx(3)


def test_times_of_different_clocks_are_not_compared() -> None:
    """Three machines, or boots of one, whose clocks happen to show the same; and runs older than clocks have names."""
    assert shared_seconds([[[0.0, 2.0, 1, "a"]], [[0.0, 2.0, 1, "b"]], [[0.0, 2.0, 1]]]) == pytest.approx(6)
    resumed = [[100.0, 104.0, 1, "first boot"], [3.0, 5.0, 1, "second boot"], [5.0, 7.0, 1, "second boot"]]
    assert shared_seconds([resumed, [[3.0, 7.0, 1, "second boot"]]]) == pytest.approx(4 + 4)


def test_a_clock_that_jumps_changes_no_duration(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sets the time of day ten days on at each look at it."""
    real, jumps = time.time, count()
    monkeypatch.setattr(time, "time", lambda: real() + 864_000 * next(jumps))
    began = time.monotonic()
    times = cross_validate(quick).summary["times"]
    assert 0 < times["train_seconds"] < time.monotonic() - began
    assert all(0 < seconds < time.monotonic() - began for seconds in times["fold_wall_seconds"])


def test_a_failing_refit_leaves_the_summary(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> Any:
        raise UserError("no refit today")

    monkeypatch.setattr("fmnist_cv.cross_validation.refit_job", fails)
    with pytest.raises(UserError, match="no refit today"):
        cross_validate(quick, run="kept", refit=True)
    assert CrossValidationResult.load(Path(quick["log_dir"]) / "tiny" / "kept").summary["refit"] is None


def test_many_classes_make_no_giant_figure() -> None:
    n = 300
    labels = torch.arange(n)
    report = classification_report(torch.eye(n), labels, tuple(map(str, range(n))))
    width, height = confusion_figure(report).get_size_inches()
    assert max(width, height) <= 14


def test_macro_f1_is_over_the_classes_that_occur() -> None:
    report = classification_report(torch.eye(3)[:2], torch.tensor([0, 1]), ("a", "b", "never"))
    assert report["macro_f1"] == report["balanced_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("cv", "way_out"),
    [
        ({"splitter": None, "splits": None}, "lower cv.n_splits, set cv.stratify to true, or add images"),
        ({"splitter": "KFold", "splits": None}, "change the folds that are given, or add images"),
        ({"splitter": None, "splits": "data"}, "change the folds that are given, or add images"),
    ],
)
def test_the_way_out_of_a_class_not_trained_on_fits_the_folds(cv: dict[str, Any], way_out: str) -> None:
    results: Any = {"untrained_classes": {"fold_0": ["2"]}, "cv": cv}
    (line,) = untrained_lines(results)
    assert line.endswith(f"its score counts these images; {way_out}.")
