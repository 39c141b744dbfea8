"""Every search in configs/search/ fits the experiment it searches."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fmnist_cv.search.tuning import as_search

SEARCHES = sorted((Path(__file__).parents[2] / "configs" / "search").glob("*.yaml"))


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_a_shipped_search_can_be_run(path: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    garments = {"class_path": "fmnist_cv.data.SyntheticDataModule", "init_args": {"n_train": 5100, "n_test": 10}}
    content["overrides"] = {"data": garments, **content.get("overrides", {})}  # the real images need not be there
    search = as_search({**content, "log_dir": str(tmp_path)})
    assert search.name == path.stem and search.n_trials >= 3
    assert f"configs/search/{path.name}" in path.read_text()  # the header says the command
