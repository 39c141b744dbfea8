"""A finished run is read back whole, and what is no finished run is refused with the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmnist_cv import CrossValidationResult
from fmnist_cv.engine.run_folder import write_json
from fmnist_cv.errors import UserError


@pytest.fixture
def run(standard: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(standard, tmp_path / "run", symlinks=True))


def test_images_splits_and_probabilities_fit_each_other(standard: Path) -> None:
    result = CrossValidationResult.load(standard)
    labels = result.data.train_images.labels.numpy()
    assert (labels == result.labels).all()
    for split, accuracy in zip(result.splits, result.accuracies, strict=True):
        right = result.out_of_fold()[split.repeat, split.validation].argmax(1) == labels[split.validation]
        assert right.mean() == pytest.approx(accuracy)
    test, test_labels = result.test_probabilities(), result.data.test_images.labels.numpy()
    assert test is not None and result.test_accuracies is not None
    assert test.shape == (3, 100, 10) and test.dtype == np.float32
    assert (test.argmax(2) == test_labels).mean(1) == pytest.approx(result.test_accuracies)


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    del content["digest"]
    write_json(path, content | values, with_digest=True)


def test_what_is_no_finished_run_is_refused_with_the_reason(run: Path, tmp_path: Path) -> None:
    def refused(path: Path, reason: str) -> None:
        with pytest.raises(UserError, match=reason):
            CrossValidationResult.load(path)

    refused(tmp_path / "nowhere", "there is no run .*nowhere; give the folder of one")
    refused(tmp_path, "is not a run: it has neither config.yaml nor results.json")
    change(run / "results.json", format=99)
    refused(run, r"was written by a newer version \(format 99, this version reads up to 2\); upgrade: pip install")
    (run / "results.json").write_text('{"experiment": "tiny"}')
    refused(run, "results.json does not hold the results of a run")
    (run / "results.json").write_text('{"experiment"')
    refused(
        run, "cannot read .*results.json: .*; python -m fmnist_cv.fit --resume .*/run gathers it again from the folds"
    )
    (run / "results.json").unlink()
    refused(run, "is unfinished: results.json is missing; finish it with python -m fmnist_cv.fit --resume ")


def test_other_images_than_the_runs_are_refused(run: Path) -> None:
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("drawing_seed: 0", "drawing_seed: 1"))
    change(run / "run.json", settings={})
    with pytest.raises(UserError, match="was made on other images than SYNTHETIC garments has now"):
        _ = CrossValidationResult.load(run).data


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "fold_9", None])
def test_the_best_fold_is_one_of_the_run(run: Path, name: str | None) -> None:
    change(run / "results.json", best_fold={"name": name})
    with pytest.raises(UserError, match=r"results\.json does not hold the results of a run"):
        CrossValidationResult.load(run)


def test_the_folds_are_folders_in_the_run(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    folds = [{**results["folds"][0], "name": "../fold_0"}, *results["folds"][1:]]
    change(run / "results.json", folds=folds, best_fold={"name": "../fold_0"})
    with pytest.raises(UserError, match=r"results\.json does not hold the results of a run"):
        CrossValidationResult.load(run)
