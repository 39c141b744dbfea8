"""The experiment on leaving out likely label errors, at tiny size; and its page, where it was run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from fmnist_cv import CrossValidationResult

CLEANING = Path(__file__).parents[2] / "experiments" / "cleaning"


@pytest.fixture(scope="module")
def clean() -> Any:
    """experiments/cleaning/clean.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("clean", CLEANING / "clean.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_three_arms_are_compared_on_the_test_set_by_seed(clean: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    del tiny["log_dir"]
    tiny["trainer"]["logger"] = False
    tiny["data"]["init_args"]["n_train"] = 200
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    arguments = [
        f"--config={tmp_path / 'tiny.yaml'}",
        "--seeds=2",
        "--n_splits=2",
        "--epochs=2",
        f"--log_dir={tmp_path / 'logs'}",
        f"--out={tmp_path}",
    ]
    clean.main(arguments)
    results, text = json.loads((tmp_path / "results.json").read_text()), (tmp_path / "README.md").read_text()
    runs = {
        (arm, seed): CrossValidationResult.load(tmp_path / "logs" / f"cleaning-{arm}" / f"seed_{seed}")
        for arm in ("all", "cleaned", "random")
        for seed in (0, 1)
    }
    for seed, found in enumerate(results["seeds"]):
        issues = pd.read_csv(runs["all", seed].path / "label_issues.csv")
        errors = issues.loc[issues["kind"] == "label_error", "index"].to_numpy()
        kept = np.delete(runs["all", seed].labels, errors)
        assert (runs["cleaned", seed].labels == kept).all()
        assert (np.bincount(runs["random", seed].labels) == np.bincount(kept)).all()
        assert found["n_left_out"] == len(errors) == sum(found["left_out_by_class"].values()) > 0
        for arm in ("all", "cleaned", "random"):
            assert found["arms"][arm]["vote"] == runs[arm, seed].summary["ensemble"]["last"]["accuracy"]
        test = found["mcnemar"]["cleaned"]
        gap = found["arms"]["cleaned"]["vote"] - found["arms"]["all"]["vote"]
        assert 100 * gap == pytest.approx(test["only_a"] - test["only_b"])  # 100 test images
    vote = results["differences"]["cleaned"]["vote"]
    assert vote["mean"] == pytest.approx(np.mean(vote["per_seed"]))
    assert vote["low"] <= vote["mean"] <= vote["high"]
    assert "SYNTHETIC" in text and f"{100 * vote['mean']:+.2f} points" in text

    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "logs").rglob("metrics.json")}
    clean.main(arguments)  # again: nothing is trained, and the numbers stay
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps and len(stamps) == 12
    assert json.loads((tmp_path / "results.json").read_text()) == results


def test_images_of_a_cut_off_test_set_are_counted(clean: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten images, 1 and 4 are the test set and 6 was left out; 0, 5 and 8 are of class 0."""
    train = SimpleNamespace(places=np.array([0, 2, 3, 5, 7, 8, 9]))
    data = SimpleNamespace(train_images=train, left_out=np.array([6]))
    whole = SimpleNamespace(path=tmp_path, labels=np.array([0, 1, 1, 0, 1, 0, 1]), data=data)
    found = pd.DataFrame({"index": [5, 8, 6], "kind": ["label_error", "label_error", "left_out"]})
    monkeypatch.setattr(clean, "write_report", lambda run: found.to_csv(run.path / "label_issues.csv", index=False))
    files = clean.choose_left_out(whole, tmp_path, 0)
    assert pd.read_csv(files["cleaned"])["index"].tolist() == [5, 6, 8]
    drawn = set(pd.read_csv(files["random"])["index"])
    assert len(drawn) == 3 and 6 in drawn and drawn < {0, 5, 6, 8}


@pytest.mark.skipif(not (CLEANING / "results.json").exists(), reason="the experiment has not been run yet")
def test_the_page_is_the_one_that_the_results_make(clean: Any) -> None:
    results = json.loads((CLEANING / "results.json").read_text())
    assert clean.page(results) == (CLEANING / "README.md").read_text()
    assert results["data"]["name"] == "FashionMNIST" and len(results["environment"]["commit"]) == 40
