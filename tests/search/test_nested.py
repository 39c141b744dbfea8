"""Nested cross-validation: no image of an outer fold takes part in the search inside it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fmnist_cv.errors import UserError
from fmnist_cv.search.tuning import as_search, tune


def test_outer_folds_are_unseen_by_the_searches_inside_them(searched: dict[str, Any]) -> None:
    space = {"model.dropout": {"float": [0.0, 0.5]}}
    search = searched | {"space": space, "trials": 2, "nested": 2, "overrides": {"cv.n_splits": 2}}
    result = tune(search, workers=2)
    nested = result.summary["nested"]
    left_out = []
    for fold in nested["folds"]:
        indices = pd.read_csv(result.path / "nested" / f"outer_{fold['fold']}_of_2_seed_1.csv")["index"]
        left_out.append(set(indices))
        inner = result.path.parent / fold["study"]
        info = [json.loads(path.read_text()) for path in inner.glob("trial_*/run.json")]
        assert [run["data"]["n_train"] for run in info] == [300 - len(indices)] * 2
        outer = result.path / f"nested_2_seed_1_outer_{fold['fold']}"
        with np.load(outer / "splits.npz") as splits:
            assert set(splits[f"repeat_0_fold_{fold['fold']}_validation"]) == set(indices)
        metrics = json.loads((outer / f"fold_{fold['fold']}" / "metrics.json").read_text())
        assert metrics["last"]["validation"]["accuracy"] == fold["accuracy"]
        assert metrics["n_train"] == 300 - len(indices) and "test" not in metrics["last"]
    assert set.union(*left_out) == set(range(300)) and not set.intersection(*left_out)
    assert nested["accuracy"]["mean"] == pytest.approx(np.mean([fold["accuracy"] for fold in nested["folds"]]))
    assert nested["seed"] != result.search.base.seed
    assert tune(search, workers=2).summary["nested"] == nested  # nothing is run again
    assert "Nested cross-validation" in (result.path / "study.html").read_text()


def test_nested_takes_images_away_by_itself(searched: dict[str, Any], tmp_path: Any) -> None:
    (tmp_path / "out.csv").write_text("index\n3\n")
    with pytest.raises(UserError, match=r"nested cannot be combined with data\.leave_out"):
        as_search(searched | {"nested": 2, "overrides": {"data.leave_out": str(tmp_path / "out.csv")}})


def test_a_test_set_is_not_cut_off_beside_outer_folds(searched: dict[str, Any]) -> None:
    overrides = {"cv.test": 0.2, "data.n_test": 100}
    with pytest.raises(UserError, match=r"nested cannot be combined with cv\.test"):
        as_search(searched | {"nested": 2, "overrides": overrides})
