"""Runs on splits that are given: they are recorded and checked, and each score says on how many images it stands."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from fmnist_cv import CrossValidationResult, cross_validate, fit
from fmnist_cv.analysis.compared_runs import compare_runs
from fmnist_cv.analysis.statistics import unequal_folds
from fmnist_cv.analysis.tables import summary_lines
from fmnist_cv.cross_validation import FoldsMissing, as_experiment
from fmnist_cv.data.synthetic_images import make_synthetic_images
from fmnist_cv.engine.preparation import prepare_run
from fmnist_cv.errors import UserError

WriteConfig = Callable[[dict[str, Any]], Path]


@pytest.fixture
def short(quick: dict[str, Any]) -> dict[str, Any]:
    quick["trainer"]["max_epochs"] = 1
    quick["cv"] = {"workers": 1}
    quick["data"]["init_args"] |= {"n_train": 60, "n_test": 20}
    return quick


def of_groups(config: dict[str, Any], folder: Path, groups: np.ndarray) -> dict[str, Any]:
    images, labels = make_synthetic_images(len(groups), 0)
    np.savez(folder / "data.npz", images=images, labels=labels, groups=groups)
    config["data"] = {
        "class_path": "fmnist_cv.data.ArrayDataModule",
        "init_args": {"path": str(folder / "data.npz"), "batch_size": 32},
    }
    return config


def predicted(result: CrossValidationResult) -> np.ndarray:
    return ~np.isnan(result.out_of_fold()[..., 0])


def test_images_that_a_splitter_never_holds_out_have_no_prediction_and_the_scores_say_so(
    short: dict[str, Any], write_config: WriteConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_config(short))
    chosen = ["--cv.splitter={class_path: sklearn.model_selection.TimeSeriesSplit, init_args: {n_splits: 3}}"]
    assert fit.main(["--config", config, *chosen, "--run=a"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "tiny: 3 folds given by cv.splitter TimeSeriesSplit of SYNTHETIC garments" in out
    text = "Scored on 45 of 60 training images; the other 15 are never held out and have no out-of-fold prediction."
    assert text in out
    folder = Path(short["log_dir"]) / "tiny"
    assert text in (folder / "a" / "report.md").read_text()
    a = CrossValidationResult.load(folder / "a")
    assert a.summary["held_out"] == 45 and a.summary["out_of_fold_report"]["n"] == 45
    assert predicted(a).tolist() == [[False] * 15 + [True] * 45]
    assert [len(split.train) for split in a.splits] == [15, 30, 45]
    assert a.experiment.cv.n_splits == 3  # saved with the run
    assert fit.main(["--config", config, *chosen, "--resume=a"]) == 0
    b = cross_validate(short, {"cv.splitter": {"class_path": "TimeSeriesSplit", "init_args": {"n_splits": 3}}}, run="b")
    assert "All scores stand on the 45 of 60 training images that some fold holds out." in compare_runs([a, b]).remarks
    k_fold = cross_validate(short, {"cv.n_splits": 3}, run="c")
    assert k_fold.summary["held_out"] == 60 and not any("Scored on" in line for line in summary_lines(k_fold.summary))
    with pytest.raises(UserError, match=r"made on different splits: .*fold 0 holds out different images .*splitter"):
        compare_runs([a, k_fold])


def test_a_holdout_says_on_how_many_images_it_stands(short: dict[str, Any]) -> None:
    result = cross_validate(short, {"cv.holdout": 0.2}, run="a")
    assert any("Scored on 12 of 60 training images" in line for line in summary_lines(result.summary))


def test_groups_stand_in_console_and_results_and_one_that_is_most_of_a_fold_is_named(
    short: dict[str, Any], tmp_path: Path, write_config: WriteConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = np.array(["clinic"] * 20 + [f"p{i % 20}" for i in range(40)])
    config = of_groups(short, tmp_path, groups)
    config["cv"]["splitter"] = {"class_path": "GroupKFold", "init_args": {"n_splits": 2}}
    assert fit.main(["--config", str(write_config(config)), "--run=a"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "of data (60 images, 21 groups, none split; the largest has 20 images)" in out
    assert "2 folds of 60 images, 21 groups, none split; the largest has 20 images." in out
    result = CrossValidationResult.load(Path(short["log_dir"]) / "tiny" / "a")
    recorded = result.summary["groups"]
    assert recorded is not None and (recorded["n"], recorded["largest"]) == (21, 20)
    ((fold, dominant),) = recorded["dominant"].items()
    assert dominant == {"group": "clinic", "images": 20, "of": 30}
    assert f"Caveat: the group 'clinic' is 20 of the 30 images that {fold} holds out" in out


def test_copies_stand_in_console_and_results_without_being_called_groups(short: dict[str, Any], tmp_path: Path) -> None:
    images, labels = make_synthetic_images(60, 0)
    images[30:32], labels[30:32] = images[:2], labels[:2]
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    short["data"] = {
        "class_path": "fmnist_cv.data.ArrayDataModule",
        "init_args": {"path": str(tmp_path / "data.npz"), "batch_size": 32, "duplicates": "group"},
    }
    console = Console(file=io.StringIO(), width=200)
    result = cross_validate(short, {"cv.n_splits": 2, "cv.train_size": 15}, run="a", console=console)
    said = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "of data (60 images, 4 of them copies, kept together)" in said
    lines = [line for line in summary_lines(result.summary) if "copies" in line]
    assert lines == ["4 of 60 training images are copies (2 different), kept together on one side of each split."]
    assert result.summary["copies"] == {"images": 4, "different": 2} and result.summary["groups"] is None
    assert [len(split.train) for split in result.splits] == [15, 15]


def test_a_number_of_folds_beside_given_ones_is_that_of_these(short: dict[str, Any], tmp_path: Path) -> None:
    config = of_files(short, tmp_path, [i % 3 for i in range(28)])
    assert prepare_run(as_experiment(config), run="a").experiment.cv.n_splits == 3
    for key in ("cv.n_splits", "cv.n_repeats"):
        default = {"cv.n_splits": 5, "cv.n_repeats": 1}[key]
        repeated = {"cv.splitter": {"class_path": "RepeatedKFold", "init_args": {"n_splits": 3, "n_repeats": 2}}}
        given = {} if key == "cv.n_splits" else {"data.folds": None, **repeated}
        with pytest.raises(UserError, match=rf"{key} is {default}, but there are 3 folds.* given by"):
            prepare_run(as_experiment(config, {key: default, **given}), run="b")


def test_a_run_without_a_number_of_folds_records_the_default(short: dict[str, Any]) -> None:
    prepared = prepare_run(as_experiment(short), run="a")
    recorded = prepared.run.read_config()
    assert "n_splits: 5" in recorded and "n_repeats: 1" in recorded


def test_folds_of_very_different_sizes_are_named_beside_the_interval(short: dict[str, Any], tmp_path: Path) -> None:
    config = of_groups(short, tmp_path, np.repeat([0, 1, 2], [30, 15, 15]))
    result = cross_validate(config, {"cv.splitter": "LeaveOneGroupOut"}, run="a")
    assert unequal_folds(result.summary["folds"]) in summary_lines(result.summary)


def test_one_group_a_fold_is_said_once(short: dict[str, Any], tmp_path: Path) -> None:
    config = of_groups(short, tmp_path, np.arange(60) % 3)
    result = cross_validate(config, {"cv.splitter": "LeaveOneGroupOut"}, run="a")
    assert len(result.folds) == 3
    caveats = [line for line in summary_lines(result.summary) if "group" in line and "Caveat" in line]
    assert len(caveats) == 1 and "each fold holds out mostly one group" in caveats[0]


def test_groups_that_take_a_class_from_the_training_are_refused(short: dict[str, Any], tmp_path: Path) -> None:
    config = of_groups(short, tmp_path, make_synthetic_images(60, 0)[1] % 2)  # each class is in one of two groups
    config["cv"]["n_splits"] = 2
    lost = r"all images of the class '.*' are in 1 group, so that fold \d would hold out the class"
    with pytest.raises(UserError, match=lost):
        prepare_run(as_experiment(config))
    assert not [*Path(config["log_dir"]).rglob("config.yaml")]
    assert len(prepare_run(as_experiment(config, {"cv.stratify": False})).splits) == 2


def test_a_file_of_folds_is_checked_on_resume_and_decides_which_folds_there_are(
    short: dict[str, Any], tmp_path: Path, write_config: WriteConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "folds.json"
    parts = [([*range(20, 60)], [*range(20)]), ([*range(20), *range(40, 60)], [*range(20, 40)])]
    file.write_text(json.dumps([{"train": a, "val": b} for a, b in parts]))
    short["cv"]["splits"] = str(file)
    config = str(write_config(short))
    assert fit.main(["--config", config, "--cv.fold=2", "--run=a"]) == 2
    assert "cv.fold is 2; this experiment has folds 0 to 1" in " ".join(capsys.readouterr().err.split())
    assert not (Path(short["log_dir"]) / "tiny" / "a").exists()
    for fold in (0, 1):
        fit.main(["--config", config, f"--cv.fold={fold}", "--run=a"])
    result = CrossValidationResult.load(Path(short["log_dir"]) / "tiny" / "a")
    assert [split.validation.tolist() for split in result.splits] == [b for _, b in parts]
    assert result.summary["cv"]["splits"] == str(file) and result.summary["held_out"] == 40
    file = file.rename(tmp_path / "moved.json")
    short["cv"]["splits"] = str(file)
    assert cross_validate(short, resume="a").mean == result.mean
    file.write_text(json.dumps([{"train": [*range(40)], "val": [*range(40, 60)]}]))
    with pytest.raises(UserError, match=r"made with other folds than those now given by .*moved.json: 1 instead of 2"):
        cross_validate(short, resume="a")
    file.write_text(json.dumps([{"train": a, "val": b} for a, b in reversed(parts)]))
    with pytest.raises(
        UserError, match=r"made with other folds than those now given by .*moved.json: repeat 0, fold 0 differs"
    ):
        cross_validate(short, resume="a")


@pytest.mark.parametrize("arguments", [["--cv.splitter=GroupKFolds"], ["--cv.splits=no.csv"], ["--cv.splitter=[1]"]])
def test_what_cannot_split_ends_with_status_2_and_no_files(
    arguments: list[str], short: dict[str, Any], write_config: WriteConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit.main(["--config", str(write_config(short)), *arguments]) == 2
    assert "cv.split" in capsys.readouterr().err
    assert not list(Path(short["log_dir"]).glob("*/*"))


def test_a_test_set_that_is_cut_off_is_scored_recorded_and_checked_on_resume(
    short: dict[str, Any], tmp_path: Path, write_config: WriteConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = of_groups(short, tmp_path, np.arange(60) % 20)
    config["cv"] |= {"n_splits": 2, "stratify": False}
    path = str(write_config(config))
    assert fit.main(["--config", path, "--cv.test=0.25", "--run=a"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "The test set of 15 images was cut off from the training images before any fold (cv.test)." in out
    a = CrossValidationResult.load(Path(short["log_dir"]) / "tiny" / "a")
    assert (a.summary["data"]["n_train"], a.summary["data"]["n_test"], a.summary["cv"]["test"]) == (45, 15, 0.25)
    assert a.test_images is not None and a.data.train_images.groups is not None and a.test_images.groups is not None
    assert not np.intersect1d(a.data.train_images.groups, a.test_images.groups).size
    other_seed = cross_validate(config, {"cv.test": 0.25, "seed": 1}, run="b")
    assert other_seed.summary["data"] == a.summary["data"]
    named = cross_validate(config, {"cv.test": [3, 4], "cv.n_splits": 2}, run="c")
    assert named.summary["data"]["n_test"] == 6
    with pytest.raises(UserError, match=r"has another config: cv.test \(0.25 in the run, 0.5 here\)"):
        cross_validate(config, {"cv.test": 0.5}, resume="a")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cv.test": 0.2}, "cv.test is 0.2, but SYNTHETIC garments has a test set of 20 images"),
        ({"cv.test": 2}, "cv.test is 2.0; it is a fraction between 0 and 1"),
    ],
)
def test_test_sets_that_cannot_be_cut_off_are_refused(short: dict[str, Any], settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        cross_validate(short, settings)


def test_copies_of_training_images_in_the_test_set_are_refused_unless_allowed(
    short: dict[str, Any], tmp_path: Path
) -> None:
    images, labels = make_synthetic_images(60, 0)
    path = tmp_path / "data.npz"
    np.savez(path, images=images, labels=labels, test_images=images[7:9], test_labels=labels[7:9])
    short["data"] = {
        "class_path": "fmnist_cv.data.ArrayDataModule",
        "init_args": {"path": str(path), "batch_size": 32, "duplicates": "group"},
    }
    short["cv"] |= {"n_splits": 2, "stratify": False}
    with pytest.raises(
        UserError, match=r"2 of 2 test images have the same pixels as a training image, e.g. number 0 and"
    ):
        cross_validate(short)
    assert cross_validate(short, {"data.duplicates": "keep"}).summary["copies"] is None


def of_files(config: dict[str, Any], folder: Path, folds: list[int]) -> dict[str, Any]:
    for i in range(len(folds)):
        Image.new("L", (4, 4), 7 * i).save(folder / f"{i:02}.png")
    names = [f"{i:02}.png" for i in range(len(folds))]
    table = pd.DataFrame({"path": names, "label": ["a" if i % 2 else "b" for i in range(len(folds))], "fold": folds})
    table.to_csv(folder / "all.csv", index=False)
    init_args = {"path": str(folder / "all.csv"), "folds": "fold", "batch_size": 8}
    config["data"] = {"class_path": "fmnist_cv.data.ManifestDataModule", "init_args": init_args}
    config["model"] = {"class_path": "fmnist_cv.models.LinearClassifier", "init_args": {}}
    return config


def test_a_fold_that_only_the_data_know_can_be_run_alone(short: dict[str, Any], tmp_path: Path) -> None:
    config = of_files(short, tmp_path, [i // 4 for i in range(28)])
    with pytest.raises(FoldsMissing) as missing:
        cross_validate(config, {"cv.fold": 6}, run="a")
    assert len(missing.value.missing) == 6
    with pytest.raises(UserError, match=r"cv.fold is 7; this experiment has folds 0 to 6"):
        cross_validate(config, {"cv.fold": 7}, run="a")
    with pytest.raises(UserError, match=r"cv.fold is -1; folds are counted from 0"):
        cross_validate(config, {"cv.fold": -1}, run="a")


def test_without_folds_of_the_data_there_are_as_many_as_the_default(short: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"cv.fold is 5; this experiment has folds 0 to 4"):
        cross_validate(short, {"cv.fold": 5}, run="a")


def test_a_fold_joins_no_run_that_was_made_with_other_folds(short: dict[str, Any], tmp_path: Path) -> None:
    config = {**short, "cv": {"workers": 1, "splits": str(tmp_path / "folds.csv")}}
    table = pd.DataFrame({"index": range(60), "fold": [i % 2 for i in range(60)]})
    table.to_csv(tmp_path / "folds.csv", index=False)
    with pytest.raises(FoldsMissing):
        cross_validate(config, {"cv.fold": 0}, run="a")
    table.assign(fold=[i // 30 for i in range(60)]).to_csv(tmp_path / "folds.csv", index=False)
    with pytest.raises(UserError, match=r"made with other folds than those now given by .*folds.csv"):
        cross_validate(config, {"cv.fold": 1}, run="a")


@pytest.mark.parametrize(
    "given", [{"cv.splits": "folds.csv", "cv.n_splits": 2}, {"cv.splitter": "LeaveOneGroupOut", "cv.n_splits": 2}]
)
def test_synthetic_images_in_place_of_others_have_folds_of_their_own(
    short: dict[str, Any], tmp_path: Path, given: dict[str, Any]
) -> None:
    data = {
        "class_path": "fmnist_cv.data.FashionMNISTDataModule",
        "init_args": {"root": str(tmp_path), "download": False},
    }
    console = Console(file=io.StringIO(), width=200)
    experiment = as_experiment({**short, "data": data, "synthetic_fallback": True}, given)
    prepared = prepare_run(experiment, run="a", console=console)
    assert len(prepared.splits) == 2 and not prepared.experiment.plan.is_given
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "The splits given by cv.split" in said and "are not theirs and are not used." in said


@pytest.mark.parametrize(
    ("splitter", "is_told"),
    [
        ("KFold", True),
        ("TimeSeriesSplit", True),
        ("StratifiedKFold", False),
        ({"class_path": "KFold", "init_args": {"shuffle": True}}, False),
    ],
)
def test_splitters_that_go_by_the_order_of_files_are_told(
    short: dict[str, Any], tmp_path: Path, splitter: Any, is_told: bool
) -> None:
    config = of_files(short, tmp_path, [0] * 28)
    del config["data"]["init_args"]["folds"]
    console = Console(file=io.StringIO(), width=200)
    prepare_run(as_experiment(config, {"cv.splitter": splitter}), run="a", console=console)
    said = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert ("splits by the images' order, which of files is that of their paths" in said) == is_told
