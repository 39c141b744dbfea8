"""`cross_validate` from Python does what the command does."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from running import outcome, read_json

import fmnist_cv
from fmnist_cv import CrossValidationResult, Experiment, cross_validate, fit
from fmnist_cv.command_line import OK
from fmnist_cv.cross_validation import FoldsFailed
from fmnist_cv.errors import UserError


def test_python_and_the_command_agree(
    quick: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    quick["trainer"]["max_epochs"] = 7
    config = write_config(quick)
    result = cross_validate(quick, overrides={"trainer.max_epochs": 2, "seed": 3}, run="python")
    assert fit.main(["--config", str(config), "--trainer.max_epochs=2", "--seed=3", "--run=command"]) == OK
    runs = tmp_path / "logs" / "tiny"
    assert result.path == runs / "python"
    assert outcome(runs / "python") == outcome(runs / "command")
    assert (runs / "python" / "config.yaml").read_text() == (runs / "command" / "config.yaml").read_text()
    assert quick["trainer"]["max_epochs"] == 7  # what was given is left as it was


def test_the_attributes_of_a_result(standard: Path) -> None:
    result, summary = CrossValidationResult.load(standard), read_json(standard / "results.json")
    accuracies = [fold["last"]["validation"]["accuracy"] for fold in summary["folds"]]
    assert list(result.accuracies) == accuracies
    assert result.mean == pytest.approx(np.mean(accuracies))
    assert result.test_accuracies is not None
    assert list(result.test_accuracies) == [fold["last"]["test"]["accuracy"] for fold in summary["folds"]]
    with np.load(standard / "out_of_fold.npz") as file:
        np.testing.assert_array_equal(result.out_of_fold(), file["last"])
        np.testing.assert_array_equal(result.out_of_fold("best"), file["best"])
        np.testing.assert_array_equal(result.labels, file["labels"])
    table = result.table
    assert isinstance(table, pd.DataFrame)
    assert list(table.index) == ["fold_0", "fold_1", "fold_2"]
    assert list(table["validation_accuracy_last"]) == accuracies
    assert list(table["n_train"]) == [200] * 3
    for epoch in ("last", "best"):
        for part in ("validation", "test"):
            for metric in ("accuracy", "loss"):
                expected = [fold[epoch][part][metric] for fold in summary["folds"]]
                assert list(table[f"{part}_{metric}_{epoch}"]) == expected


def test_the_config_may_be_a_file_a_mapping_or_an_experiment(
    quick: dict[str, Any], write_config: Callable[[dict[str, Any]], Path]
) -> None:
    quick["cv"]["holdout"] = 0.3
    path = write_config(quick)
    given = {"mapping": quick, "path": path, "text": str(path), "experiment": Experiment.parse([f"--config={path}"])}
    runs = [cross_validate(config, {"trainer.max_epochs": 1}, run=name) for name, config in given.items()]
    first, *others = [outcome(run.path) for run in runs]
    assert all(other == first for other in others)
    resumed = cross_validate(given["experiment"], {"trainer.max_epochs": 1}, resume=str(runs[0].path))
    assert outcome(resumed.path) == first


def test_nothing_is_printed_without_a_console(quick: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    quick["cv"]["holdout"] = 0.3
    cross_validate(quick)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_user_errors_raise_exceptions(quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"did you mean 'trainer\.max_epochs'"):
        cross_validate({**quick, "trainner": {"max_epochs": 1}})
    with pytest.raises(UserError, match=r"trainer\.max_epochs"):
        cross_validate(quick, {"trainer.max_epochs": "many"})
    quick["model"]["class_path"] = "users_modules.DenseThatMayGoWrong"
    monkeypatch.setenv("GOES_WRONG", "fold_1 0 0 raise")
    with pytest.raises(FoldsFailed) as failed:
        cross_validate(quick, run="fails")
    assert list(failed.value.failures) == ["fold_1"]
    reason, traceback = failed.value.failures["fold_1"]
    assert reason == "RuntimeError: the layer is on fire" and "users_modules.py" in traceback
    assert failed.value.run.name == "fails"


def test_public_names_exist() -> None:
    for name in fmnist_cv.__all__:
        assert getattr(fmnist_cv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'crossvalidate'"):
        _ = fmnist_cv.crossvalidate  # type: ignore[attr-defined]
    assert importlib.import_module("fmnist_cv").cross_validate is cross_validate
