"""Loggers that a config adds: each log is named after its fold, and a resumed fold continues it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger
from running import read_json

from fmnist_cv import cross_validate
from fmnist_cv.cross_validation import FoldsFailed
from fmnist_cv.engine.loggers import name_loggers

LOGGERS = "lightning.pytorch.loggers"
HERE = "tiny-first-fold_1"


class OwnLogger(Logger):
    def __init__(self, name: str = "mine", version: int = 7) -> None: ...


@pytest.mark.parametrize(
    ("logger", "given", "told"),
    [
        ("CSVLogger", {}, {"version": HERE}),
        ("CSVLogger", {"name": None, "version": None}, {"name": None, "version": HERE}),
        ("CSVLogger", {"version": "mine"}, {"version": "mine-fold_1"}),
        ("TensorBoardLogger", {"version": 3}, {"version": "3-fold_1"}),
        ("WandbLogger", {"project": "p"}, {"project": "p", "version": HERE, "name": HERE}),
        ("WandbLogger", {"id": "x", "name": "n"}, {"id": "x", "name": "n"}),
        ("MLFlowLogger", {"run_id": None}, {"run_id": None, "run_name": HERE}),
        (f"{__name__}.OwnLogger", {}, {}),  # has names of its own
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_unset_identifiers_of_loggers_become_the_folds_name(
    logger: str, given: dict[str, Any], told: dict[str, Any], several: bool
) -> None:
    class_path = logger if "." in logger else f"{LOGGERS}.{logger}"
    entry = Namespace(class_path=class_path, init_args=Namespace(given))
    named = name_loggers([entry, entry] if several else entry, Path("logs/tiny/first/fold_1"))
    for found in named if several else [named]:
        assert found.as_dict() == {"class_path": class_path, "init_args": told}
    assert entry.init_args.as_dict() == given


@pytest.mark.parametrize("logger", [None, True, False])
def test_without_loggers_the_config_is_unchanged(logger: bool | None) -> None:
    assert name_loggers(logger, Path("logs/tiny/first/fold_1")) is logger


def test_each_fold_has_its_own_complete_curves_after_a_failure(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lay in version_0 to version_2 in any order, and a resumed fold began another version with its last epochs."""
    tiny["model"]["class_path"] = "users_modules.DenseThatMayGoWrong"
    tiny["cv"]["n_splits"] = 2
    tiny["trainer"]["logger"] = {"class_path": f"{LOGGERS}.CSVLogger", "init_args": {"save_dir": str(tmp_path / "csv")}}
    monkeypatch.setenv("GOES_WRONG", "fold_1 2 3 raise")
    with pytest.raises(FoldsFailed):
        cross_validate(tiny, run="first")
    monkeypatch.delenv("GOES_WRONG")
    run = cross_validate(tiny, resume="first").path
    folder = tmp_path / "csv" / "lightning_logs"
    assert sorted(path.name for path in folder.iterdir()) == ["tiny-first-fold_0", "tiny-first-fold_1"]
    for fold in ("fold_0", "fold_1"):
        with open(folder / f"tiny-first-{fold}" / "metrics.csv", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["val/accuracy"]]
        history = read_json(run / fold / "metrics.json")["history"]
        assert [int(row["step"]) for row in rows] == [0, 1, 2]
        for name in ("train/loss", "val/loss", "val/accuracy"):
            found, expected = [float(row[name]) for row in rows], [epoch[name] for epoch in history]
            assert found == pytest.approx(expected, rel=1e-6)
