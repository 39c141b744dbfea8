"""A run that is killed again and again, and resumed each time, ends as one that was left alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import Commands, outcome

SIGKILLED = -9
EPOCHS, FOLDS = 4, 3

# Where the run dies: (operation, file, when, which of the calls), or the seconds after an epoch's line; then the
# epochs that fold_0, fold_1 and fold_2 have behind them, or None where chance decides.
DEATHS: list[tuple[tuple[Any, ...], tuple[int, int, int] | None]] = [
    (("move", r"fold_0/\.last\.ckpt\.tmp$", "inside"), (0, 0, 0)),
    (("replace", r"fold_0/last\.ckpt$", "before"), (0, 0, 0)),  # best.ckpt is there, last.ckpt is not
    (("move", r"fold_0/\.last\.ckpt\.tmp$", "inside"), (0, 0, 0)),  # onto the file that best.ckpt links to
    (("replace", r"fold_0/last\.ckpt$", "after"), (1, 0, 0)),
    (("fsync", r"fold_0/\.last\.ckpt\.tmp$", "before", 2), (2, 0, 0)),
    (("replace", r"fold_0/last\.ckpt$", "after", 2), (4, 0, 0)),  # trained, not scored
    (("write", r"fold_0/\.probabilities\.npz\.\d+\.tmp$", "inside"), (4, 0, 0)),
    (("replace", r"fold_0/probabilities\.npz$", "before"), (4, 0, 0)),
    (("replace", r"fold_0/probabilities\.npz$", "after"), (4, 0, 0)),
    (("replace", r"fold_0/metrics\.json$", "before"), (4, 0, 0)),
    (("replace", r"fold_0/metrics\.json$", "after"), (4, 0, 0)),
    (("after an epoch", 0.0, 0.15), None),
    (("after an epoch", 0.0, 0.1), None),
    (("link", r"fold_2/\.best\.ckpt\.tmp$", "after"), (4, 4, 0)),
    (("replace", r"fold_2/best\.ckpt$", "before"), (4, 4, 0)),
    (("replace", r"fold_2/best\.ckpt$", "after"), (4, 4, 0)),
    (("write", r"fold_2/\.metrics\.json\.\d+\.tmp$", "inside"), (4, 4, 4)),
    (("fsync", r"\.out_of_fold\.npz\.\d+\.tmp$", "after"), (4, 4, 4)),
    (("replace", r"out_of_fold\.npz$", "before"), (4, 4, 4)),
    (("replace", r"out_of_fold\.npz$", "after"), (4, 4, 4)),
    (("replace", r"best\.ckpt$", "before"), (4, 4, 4)),
    (("write", r"\.results\.json\.\d+\.tmp$", "inside"), (4, 4, 4)),
    (("replace", r"results\.json$", "before"), (4, 4, 4)),
    (("replace", r"results\.json$", "after"), (4, 4, 4)),
]


@pytest.fixture
def network(quick: dict[str, Any]) -> dict[str, Any]:
    """All that makes an epoch random, and all that has a state: dropout, flips, batch norm, Adam, a scheduler."""
    quick["model"] = {
        "class_path": "fmnist_cv.models.BatchNormCNN",
        "init_args": {
            "widths": [16, 12],
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 2e-3, "fused": True}},
            "lr_scheduler": {
                "class_path": "torch.optim.lr_scheduler.CosineAnnealingLR",
                "init_args": {"T_max": EPOCHS},
            },
        },
    }
    quick["data"]["init_args"] |= {
        "n_train": 240,
        "n_test": 60,
        "batch_size": 40,
        "augment": [{"class_path": "kornia.augmentation.RandomHorizontalFlip"}],
    }
    quick["trainer"]["max_epochs"] = EPOCHS
    return quick


def epochs_saved(run: Path) -> tuple[int, ...]:
    """Epochs that the folds need not repeat."""
    import torch

    saved = []
    for fold in range(FOLDS):
        path = run / f"fold_{fold}" / "last.ckpt"
        states = torch.load(path, weights_only=True)["callbacks"] if path.exists() else {"KeepCheckpoints": {}}
        saved.append(len(states["KeepCheckpoints"].get("history", [])))
    return tuple(saved)


def test_a_run_killed_at_every_step_ends_as_one_left_alone(
    commands: Commands, network: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    config, runs = write_config(network), tmp_path / "logs" / "tiny"
    assert commands.run("--config", config, "--run", "whole").status == 0
    chance = random.Random(0)

    made = commands.run("--config", config, "--run", "killed", kill=("rename", r"tiny/killed$", "before"))
    assert made.status == SIGKILLED
    assert not (runs / "killed").exists()
    run, start = runs / "killed", ("--run", "killed")
    for death, expected in DEATHS:
        finished = {path: path.stat().st_mtime_ns for path in run.glob("fold_*/metrics.json")}
        before = epochs_saved(run)
        if death[0] == "after an epoch":
            ended = commands.run("--config", config, *start, kill_after=(": epoch", chance.uniform(death[1], death[2])))
        else:
            ended = commands.run("--config", config, *start, kill=death)
        assert ended.status == SIGKILLED, f"{death}: {ended}"
        after = epochs_saved(run)
        assert expected is None or after == expected, death
        for fold, epochs in enumerate(before):
            if 0 < epochs < EPOCHS:
                assert f"fold_{fold}: goes on after epoch {epochs}\n" in ended.out
                assert f"fold_{fold}: epoch {epochs}/" not in ended.out
        assert all(path.stat().st_mtime_ns == time for path, time in finished.items()), f"{death}: a fold ran anew"
        start = ("--resume", "killed")

    finished = {path: path.stat().st_mtime_ns for path in run.glob("fold_*/metrics.json")}
    assert len(finished) == FOLDS
    ended = commands.run("--config", config, "--resume", "last")
    assert ended.status == 0, ended
    assert ": epoch" not in ended.out
    assert all(path.stat().st_mtime_ns == time for path, time in finished.items())
    assert outcome(run) == outcome(runs / "whole")
    assert (run / "best.ckpt").resolve().name == "last.ckpt"
