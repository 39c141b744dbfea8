"""Runs on colour photos of any size and format: predict prepares them as training did, and every command takes such runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from fmnist_cv import CrossValidationResult, cross_validate, tune
from fmnist_cv.inference import evaluate_run, export_run, load_ensemble, predict_files
from fmnist_cv.inference.files import read_and_preprocess
from fmnist_cv.predict import main as predict
from fmnist_cv.reporting.page import write_report
from fmnist_cv.reporting.tensorboard import write_tensorboard

SHAPE = (3, 24, 20)


def draw_photos(root: Path) -> None:
    """root/{train,test}/{day,night}: photos of several sizes, as JPEG on its side, palette, transparent, grey and CMYK."""
    random = np.random.default_rng(0)
    for part, n in (("train", 12), ("test", 6)):
        for name, least in (("day", 120), ("night", 0)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                size = random.integers(30, 90, 2)
                rough = random.integers(least, least + 136, (4, 5, 3)).astype(np.uint8)
                photo = Image.fromarray(rough).resize(tuple(map(int, size)), Image.Resampling.BICUBIC)
                kind = i % 6
                if kind == 0:
                    exif = Image.Exif()
                    exif[0x0112] = 6  # the camera was held upright
                    photo.save(folder / f"{i}.jpg", exif=exif)
                elif kind == 1:
                    photo.quantize(16).save(folder / f"{i}.png")
                elif kind == 2:
                    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
                    photo.save(folder / f"{i}.webp", lossless=True)
                elif kind == 3:
                    photo.convert("L").save(folder / f"{i}.bmp")
                elif kind == 4:
                    photo.convert("CMYK").save(folder / f"{i}.tif")
                else:
                    photo.save(folder / f"{i}.gif")


@pytest.fixture
def photos(once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """To be read only."""
    return once("photos", draw_photos)


@pytest.fixture
def run(
    photos: Path, quick: dict[str, Any], once: Callable[[str, Callable[[Path], None]], Path], one_core: None
) -> CrossValidationResult:
    """Two folds of one epoch; to be read only."""

    def fill(folder: Path) -> None:
        for name, hidden in (("dense", [8]), ("wide", [16])):
            quick["name"], quick["log_dir"] = name, str(folder)
            quick["model"]["init_args"] = {"hidden": hidden}
            arguments = {"root": str(photos), "image_size": [24, 20], "resize": "crop", "scaling": "standardise"}
            quick["data"] = {"class_path": "fmnist_cv.data.ImageFolderDataModule", "init_args": arguments}
            quick["cv"]["n_splits"], quick["trainer"]["max_epochs"] = 2, 1
            cross_validate(quick, run="run")

    return CrossValidationResult.load(once("runs_on_photos", fill) / "dense" / "run")


def paths_of(run: CrossValidationResult, names: tuple[str, ...] | None) -> list[Path]:
    assert names is not None
    return [run.data.root / name for name in names]  # type: ignore[attr-defined]


def test_a_photo_is_predicted_as_it_was_scored(run: CrossValidationResult) -> None:
    test, ensemble, stored = run.test_images, load_ensemble(run), run.test_probabilities()
    assert test is not None and stored is not None
    found = predict_files(ensemble, paths_of(run, test.names))
    assert set(found.prepared) == {"as in training"} and not found.unreadable
    np.testing.assert_array_equal(found.probabilities, stored)


def test_the_photos_of_a_fold_get_its_out_of_fold_predictions(run: CrossValidationResult) -> None:
    train, stored = run.data.train_images, run.out_of_fold()
    for split, network in zip(run.splits, load_ensemble(run).networks, strict=True):
        names = train.subset(torch.from_numpy(split.validation)).names
        ensemble = load_ensemble(run)
        pixels = [read_and_preprocess(path, SHAPE, "auto", ensemble.decode)[0] for path in paths_of(run, names)]
        np.testing.assert_array_equal(np.stack(pixels), train.pixels(torch.from_numpy(split.validation)).numpy())
        with torch.inference_mode():
            found = network(torch.from_numpy(np.stack(pixels))).numpy()
        np.testing.assert_array_equal(found, stored[split.repeat, split.validation])


def test_other_preparations_are_still_to_be_had(run: CrossValidationResult, photos: Path) -> None:
    folder = photos / "test" / "day"
    found = predict_files(load_ensemble(run), [folder], "none")
    assert set(found.prepared) == {"resized"}
    assert (found.probabilities != predict_files(load_ensemble(run), [folder]).probabilities).any()


def test_the_command_says_how_photos_were_prepared(
    run: CrossValidationResult, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.jpg").write_text("<html>")
    assert predict([str(run.path), str(photos / "test" / "night"), str(tmp_path), "--format", "csv"]) == 1
    shown = capsys.readouterr()
    assert shown.out.count(",as in training,") == 6
    assert "page.jpg is a web page, not an image" in shown.err and "1 of 7 files were skipped" in shown.err


def test_where_no_size_was_set_files_of_another_size_are_resized_and_it_is_said(
    quick: dict[str, Any], tmp_path: Path, one_core: None
) -> None:
    random = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "own" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(path)
    Image.new("RGB", (40, 20), "red").save(tmp_path / "large.png")
    quick["model"]["init_args"] = {"hidden": [8]}
    quick["data"] = {
        "class_path": "fmnist_cv.data.ImageFolderDataModule",
        "init_args": {"root": str(tmp_path / "own")},
    }
    quick["cv"]["n_splits"], quick["trainer"]["max_epochs"] = 2, 1
    ensemble = load_ensemble(cross_validate(quick, run="run"))
    found = predict_files(ensemble, [tmp_path / "own" / "a" / "0.png", tmp_path / "large.png"])
    assert found.prepared == ("as in training", "resized")


def test_such_runs_are_evaluated_compared_reported_and_exported(
    run: CrossValidationResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fmnist_cv.compare import main as compare

    found, _ = evaluate_run(run.path, out=tmp_path / "evaluation")
    assert found["n"] == 12 and found["against_the_run"] is not None
    assert found["against_the_run"]["largest_difference_of_a_probability"] == 0
    assert compare([str(run.path), str(run.path.parents[1] / "wide" / "run")]) == 0
    assert "wide" in capsys.readouterr().out
    assert "sheets" in write_report(run).read_text()
    assert any(write_tensorboard(run).iterdir())
    _, said = export_run(run.path, "onnx", out=tmp_path / "onnx")
    assert said[0].startswith("onnxruntime gives the same predictions for 12 images")


def test_photos_are_named_in_report_and_label_issues_and_left_out_by_name_when_files_are_added(
    run: CrossValidationResult, photos: Path, tmp_path: Path, one_core: None
) -> None:
    page = write_report(run).read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    train, test = run.data.train_images, run.test_images
    assert train.names is not None and test is not None and test.names is not None
    for part, images in (("out_of_fold", train), ("suspects", train), ("test", test)):
        found = data["parts"][part]
        assert found["name"] == [(images.names or ())[i] for i in found["number"]] != []
    listed = pd.read_csv(run.path / "label_issues.csv")
    assert "index" not in listed and set(listed["kind"]) >= {"outlier"} and set(listed["name"]) <= set(train.names)
    assert set(listed["other"].dropna()) <= set(train.names)
    folder = shutil.copytree(photos, tmp_path / "photos")
    shutil.copy(folder / "train" / "day" / "0.jpg", folder / "train" / "day" / "!first.jpg")
    arguments = run.experiment.config.data.init_args.as_dict() | {"root": str(folder), "duplicates": "keep"}
    arguments["leave_out"] = str(run.path / "label_issues.csv")
    config = {"class_path": "fmnist_cv.data.ImageFolderDataModule", "init_args": arguments}
    overrides = {"log_dir": str(tmp_path / "logs")}
    left = cross_validate(run.experiment, overrides, data=config, run="left")
    expected = {*train.names, "train/day/!first.jpg"} - {*listed["name"]}
    assert left.data.train_images.names is not None and {*left.data.train_images.names} == expected
    write_report(left)
    again = pd.read_csv(left.path / "label_issues.csv")
    assert set(again.loc[again["kind"] == "left_out", "name"]) == {*listed["name"]}


def test_a_labelled_folder_or_table_is_evaluated_as_the_run_was_trained(
    run: CrossValidationResult, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fmnist_cv.evaluate import main as evaluate

    stored, test = run.test_probabilities(), run.test_images
    assert stored is not None and test is not None
    right = 100 * (stored.mean(0, dtype=np.float64).argmax(1) == test.labels.numpy()).mean()
    rows = [f"{path},{path.parent.name}" for path in sorted((photos / "test").glob("*/*"))]
    (tmp_path / "new.csv").write_text("\n".join(["file,kind", *rows]))
    columns = ["--data.image", "file", "--data.label=kind"]
    for name, data in (("folder", [str(photos / "test")]), ("table", [str(tmp_path / "new.csv"), *columns])):
        assert evaluate([str(run.path), "--data", *data, "--out", str(tmp_path / name)]) == 0
        report = json.loads((tmp_path / name / "evaluation.json").read_text())
        assert report["n"] == 12 and 100 * report["scores"]["ensemble"]["accuracy"] == pytest.approx(right)
    capsys.readouterr()
    for arguments, reason in (
        (["--data.label", "kind"], "--data.label has no effect without --data"),
        (["--data", str(photos), "--data.label"], "--data.label: expected one argument"),
        (["--data", str(photos), "--data.imagesize=3"], "'imagesize' is not an option of .*did you mean 'image_size'"),
        (["--data", str(tmp_path / "new.csv")], "has no column 'path'"),
    ):
        assert evaluate([str(run.path), *arguments]) == 2
        assert re.search(reason, capsys.readouterr().err)


def test_a_manifest_with_groups_is_searched_and_its_winner_predicts(
    photos: Path, tiny: dict[str, Any], tmp_path: Path, one_core: None
) -> None:
    rows = [
        f"{path.relative_to(photos)},{path.parent.name},day {i // 2},{path.parts[-3]}"
        for i, path in enumerate(sorted(photos.glob("*/*/*")))
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,label,session,part", *rows]))
    columns = {"group": "session", "split": "part", "root": str(photos), "image_size": 16, "resize": "pad"}
    tiny["data"] = {
        "class_path": "fmnist_cv.data.ManifestDataModule",
        "init_args": {"path": str(tmp_path / "manifest.csv"), **columns},
    }
    tiny["model"]["init_args"] = {"hidden": [8]}
    tiny["cv"]["n_splits"] = 2
    tiny["trainer"] |= {"max_epochs": 1, "logger": False}
    tiny["report"] = False
    log_dir = tiny.pop("log_dir")
    (tmp_path / "photos.yaml").write_text(yaml.safe_dump(tiny))
    search = {
        "name": "study",
        "experiment": str(tmp_path / "photos.yaml"),
        "log_dir": log_dir,
        "space": {"model.dropout": {"float": [0.0, 0.5]}},
        "trials": 1,
        "confirm": {"top": 0},
    }
    winner = tune(search, workers=1).experiment
    run = cross_validate(winner.replaced(trainer__max_epochs=1), run="winner")
    groups = run.data.train_images.groups
    assert groups is not None
    for split in run.splits:
        assert not set(groups[split.train].tolist()) & set(groups[split.validation].tolist())
    test, stored = run.test_images, run.test_probabilities()
    assert test is not None and test.names is not None and stored is not None
    found = predict_files(load_ensemble(run), [photos / name for name in test.names])
    np.testing.assert_array_equal(found.probabilities, stored)


@pytest.mark.parametrize(("mode", "resize"), [("L", "crop"), ("RGB", "pad")])
def test_pictures_of_other_libraries_data_sets_are_decoded_as_in_training(
    mode: str, resize: str, tmp_path: Path
) -> None:
    from fmnist_cv.data import TorchvisionDataModule

    for i in range(4):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((30 + i, 20), 90).convert(mode).save(path)
    arguments = {"init_args": {"root": str(tmp_path)}, "test": False, "resize": resize}
    module = TorchvisionDataModule("ImageFolder", **arguments, image_size=[9, 11])  # type: ignore[arg-type]
    decode = module.decode
    assert decode is not None
    for i, name in enumerate(("a/0.png", "a/2.png", "b/1.png", "b/3.png")):
        np.testing.assert_array_equal(decode(tmp_path / name), module.train_images.images[i].numpy())
    assert TorchvisionDataModule("ImageFolder", **arguments).decode is None  # type: ignore[arg-type]


def test_an_image_of_another_kind_than_files_have_is_refused(
    quick: dict[str, Any], tmp_path: Path, one_core: None
) -> None:
    images, labels = np.random.default_rng(0).random((20, 5, 8, 8)).astype(np.float32), np.arange(20) % 2
    picture = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(picture)
    quick["model"]["init_args"] = {"hidden": [8]}
    quick["cv"]["n_splits"], quick["trainer"]["max_epochs"] = 2, 1
    for pixels, reason in (
        (images, "trained on pixels of float32; give arrays to load_ensemble"),
        ((images * 255).astype(np.uint8), "image files have 1 or 3 channels, but the models take 5"),
    ):
        np.savez(tmp_path / "own.npz", images=pixels, labels=labels)
        quick["data"] = {
            "class_path": "fmnist_cv.data.ArrayDataModule",
            "init_args": {"path": str(tmp_path / "own.npz")},
        }
        run = cross_validate(quick)
        assert predict([str(run.path), str(picture)]) == 2
        with pytest.raises(Exception, match=reason):
            predict_files(load_ensemble(run), [picture])
