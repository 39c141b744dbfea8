"""A run that is killed again and again, and resumed each time, ends as one that was left alone."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from running import Commands, outcome, read_json
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import fmnist_cv.engine.fold as fold_module
from fmnist_cv import cross_validate
from fmnist_cv.analysis.compared_runs import compare_runs
from fmnist_cv.analysis.tables import summary_lines
from fmnist_cv.errors import UserError
from fmnist_cv.utils.user_text import make_console

SIGKILLED = -9
EPOCHS, FOLDS = 4, 3
UNFINISHED = r"\.\.last\.ckpt\.new\.tmp"  # a checkpoint that is being written

# Where the run dies: (operation, file, when, which of the calls), or seconds after the line of an epoch; then the
# epochs that fold_0, fold_1 and fold_2 have behind them, or None where chance decides.
DEATHS: list[tuple[tuple[Any, ...] | float, tuple[int, int, int] | None]] = [
    (("write", rf"fold_0/{UNFINISHED}$", "inside"), (0, 0, 0)),
    (("replace", r"fold_0/last\.ckpt$", "before"), (0, 0, 0)),  # best.ckpt is there, last.ckpt is not
    (("write", rf"fold_0/{UNFINISHED}$", "inside"), (0, 0, 0)),  # beside the file that best.ckpt links to
    (("replace", r"fold_0/last\.ckpt$", "after"), (1, 0, 0)),
    (("fsync", rf"fold_0/{UNFINISHED}$", "before", 2), (2, 0, 0)),
    (("replace", r"fold_0/last\.ckpt$", "after", 2), (4, 0, 0)),  # trained, not scored
    (("write", r"fold_0/\.probabilities\.npz\.(\d+\.)?tmp$", "inside"), (4, 0, 0)),
    (("replace", r"fold_0/probabilities\.npz$", "before"), (4, 0, 0)),
    (("replace", r"fold_0/probabilities\.npz$", "after"), (4, 0, 0)),
    (("replace", r"fold_0/metrics\.json$", "before"), (4, 0, 0)),
    (("replace", r"fold_0/metrics\.json$", "after"), (4, 0, 0)),
    (("replace", r"fold_1/best\.ckpt$", "before"), (4, 0, 0)),
    (("replace", r"fold_1/best\.ckpt$", "after"), (4, 0, 0)),
    (0.1, None),
    (0.06, None),
    (("write", r"fold_2/\.metrics\.json\.(\d+\.)?tmp$", "inside"), (4, 4, 4)),
    (("write", r"\.out_of_fold\.npz\.(\d+\.)?tmp$", "inside"), (4, 4, 4)),
    (("replace", r"out_of_fold\.npz$", "before"), (4, 4, 4)),
    (("replace", r"out_of_fold\.npz$", "after"), (4, 4, 4)),
    (("write", r"\.results\.json\.(\d+\.)?tmp$", "inside"), (4, 4, 4)),
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


def epochs_saved(run: Path) -> list[int]:
    """Per fold, the epochs that need not be repeated."""
    saved = []
    for fold in range(FOLDS):
        path = run / f"fold_{fold}" / "last.ckpt"
        states = torch.load(path, weights_only=True)["callbacks"] if path.exists() else {"KeepCheckpoints": {}}
        saved.append(len(states["KeepCheckpoints"].get("history", [])))
    return saved


def times_of_finished(run: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in run.glob("fold_*/metrics.json")}


def test_a_run_killed_at_every_step_equals_an_uninterrupted_one(
    commands: Commands, network: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    config, run = write_config(network), tmp_path / "logs" / "tiny" / "killed"
    assert commands.run("--config", config, "--run", "whole").status == 0
    chance = random.Random(0)

    made = commands.run("--config", config, "--run", "killed", kill=("rename", r"tiny/killed$", "before"))
    assert made.status == SIGKILLED
    assert not run.exists()
    option = "--run"
    for death, expected in DEATHS:
        finished, before = times_of_finished(run), epochs_saved(run)
        how: dict[str, Any] = (
            {"kill_after": (": epoch", chance.uniform(0, death))} if isinstance(death, float) else {"kill": death}
        )
        ended = commands.run("--config", config, option, "killed", **how)
        assert ended.status == SIGKILLED, f"{death}: {ended}"
        assert expected is None or epochs_saved(run) == list(expected), death
        for fold, epochs in enumerate(before):
            if 0 < epochs < EPOCHS and f"fold_{fold}: " in ended.out:
                assert f"fold_{fold}: resumes after epoch {epochs}\n" in ended.out
                assert f"fold_{fold}: epoch {epochs}/" not in ended.out
        assert times_of_finished(run).items() >= finished.items(), f"{death}: a finished fold ran again"
        option = "--resume"

    finished = times_of_finished(run)
    assert len(finished) == FOLDS
    ended = commands.run("--config", config, "--resume", "last")
    assert ended.status == 0, ended
    assert ": epoch" not in ended.out
    assert times_of_finished(run) == finished
    assert outcome(run) == outcome(run.with_name("whole"))


def test_an_early_stop_is_not_forgotten(
    commands: Commands, network: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    """Killed in an epoch, then after the stop was decided and saved; the curves in TensorBoard are complete as well."""
    network["selection"] = {"monitor": "val/loss", "mode": "min", "patience": 2}
    network["model"]["init_args"] |= {
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
        "lr_scheduler": {
            "class_path": "torch.optim.lr_scheduler.OneCycleLR",
            "init_args": {"max_lr": 0.05, "total_steps": 15 * 4},
        },
        "lr_scheduler_interval": "step",
    }
    network["trainer"]["max_epochs"] = 15
    config, run = write_config(network), tmp_path / "logs" / "tiny" / "killed"
    assert commands.run("--config", config, "--run", "whole", "--trainer.logger", "false").status == 0
    whole = outcome(run.with_name("whole"))
    epochs = whole["folds"]["fold_0"]["epochs"]
    assert whole["folds"]["fold_0"]["stopped_early"]
    assert 3 <= epochs < 15

    arguments = ("--config", config, "--trainer.logger", "true")
    first = commands.run(*arguments, "--run", "killed", kill=("replace", r"fold_0/last\.ckpt$", "after", 2))
    second = commands.run(
        *arguments, "--resume", "killed", kill=("replace", r"fold_0/last\.ckpt$", "after", epochs - 2)
    )
    assert (first.status, second.status) == (SIGKILLED, SIGKILLED)
    assert epochs_saved(run) == [epochs, 0, 0]
    ended = commands.run(*arguments, "--resume", "killed")
    assert ended.status == 0, ended
    assert "fold_0: epoch" not in ended.out
    assert outcome(run) == whole

    history = read_json(run / "fold_0" / "metrics.json")["history"]
    curves = EventAccumulator(str(run / "fold_0")).Reload()
    for tag in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        points = {(event.step, event.value) for event in curves.Scalars(tag)}
        assert points == {(epoch, metrics[tag]) for epoch, metrics in enumerate(history)}, f"{tag} lost points"


def test_parallel_folds_die_with_their_command(
    commands: Commands, network: dict[str, Any], write_config: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    """And neither the kill, nor processes of their own, nor the order in which folds run changes a bit of the result.

    fold_0 hangs when the command is killed, so that it would not notice by itself that nobody listens any more.
    """
    network["model"]["class_path"] = "users_modules.CNNThatMayGoWrong"
    config, runs = write_config(network), tmp_path / "logs" / "tiny"
    side_by_side = ("--config", config, "--cv.workers", 2)
    made = commands.run(*side_by_side, "--run", "one_by_one", cores=2, kill=("rename", r"one_by_one$", "after"))
    assert made.status == SIGKILLED
    for fold in (2, 1, 0):
        ended = commands.run("--config", config, "--cv.workers=1", f"--cv.fold={fold}", "--run=one_by_one", cores=2)
        assert ended.status == 0, ended

    mark = str(tmp_path)
    ended = commands.run(
        *side_by_side,
        "--run",
        "killed",
        cores=2,
        in_process=False,
        fresh_fork_server=True,
        kill_after=("fold_0: epoch 1", 0.2),
        variables={"FMNIST_CV_TEST": mark, "GOES_WRONG": "fold_0 1 0 hang"},
    )
    assert ended.status == SIGKILLED, ended
    deadline = time.monotonic() + 20
    while left := processes_with(f"FMNIST_CV_TEST={mark}"):
        assert time.monotonic() < deadline, f"still alive: {left}"
        time.sleep(0.02)
    assert not [
        *commands.temporary.glob("pymp-*"),
        *commands.temporary.glob("fmnist_cv-*"),
        *commands.temporary.glob("tmp*"),
    ]
    assert epochs_saved(runs / "killed")[0] == 1
    ended = commands.run(*side_by_side, "--resume", "killed", cores=2, in_process=False)
    assert ended.status == 0, ended
    assert "fold_0: resumes after epoch 1\n" in ended.out
    assert outcome(runs / "killed") == outcome(runs / "one_by_one")


def processes_with(variable: str) -> list[str]:
    """Command lines of the processes that were started with an environment variable."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (process / "environ").read_bytes().split(b"\0") and process.name != str(
                os.getpid()
            ):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it is gone, or another user's
            continue
    return found


class _Killed(BaseException):
    """Passes through everything that a kill does not run, save `finally`."""


@pytest.mark.parametrize("dies_after", [1, 2, 3])
def test_a_stop_requested_before_min_epochs_is_not_forgotten(
    quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch, dies_after: int
) -> None:
    """Patience runs out in epoch 1, `min_epochs` is 4: training ends there, resumed or not."""
    quick["cv"] |= {"holdout": 0.3}
    scores = [3.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    quick["model"] = {"class_path": "users_modules.LogsByEpoch", "init_args": {"scores": scores}}
    quick["selection"] = {"monitor": "score", "patience": 1}
    quick["trainer"] |= {"min_epochs": 4, "max_epochs": len(scores)}
    whole = cross_validate(quick, run="whole")

    killed(quick, monkeypatch, after_epochs=dies_after, run="killed")
    assert outcome(cross_validate(quick, resume="killed").path) == outcome(whole.path)


@pytest.mark.parametrize(
    "limit",
    [
        {"max_epochs": None, "max_steps": 11},
        {"max_epochs": 3, "limit_train_batches": 2},
        {"max_epochs": 3, "accumulate_grad_batches": 2, "gradient_clip_val": 0.5},
    ],
    ids=lambda limit: "-".join(limit),
)
@pytest.mark.parametrize("dies_after", [1, "training"])
def test_other_ways_to_train_resume_alike(
    quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch, limit: dict[str, Any], dies_after: int | str
) -> None:
    quick["cv"] |= {"holdout": 0.3}
    quick["trainer"] |= limit
    whole = cross_validate(quick, run="whole")
    killed(quick, monkeypatch, after_epochs=dies_after, run="killed")
    assert outcome(cross_validate(quick, resume="killed").path) == outcome(whole.path)


def test_images_drawn_by_weight_are_drawn_alike_in_a_resumed_epoch(
    quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the run says how they are drawn, is another one than with other weights, and may be compared with it."""
    random, rows = np.random.default_rng(0), ["path,label,weight"]
    for i in range(24):
        Image.fromarray(random.integers(0, 256, (4, 5), dtype=np.uint8)).save(tmp_path / f"{i:02}.png")
        rows.append(f"{i:02}.png,{'ab'[i % 2]},{i % 4}")
    (tmp_path / "scans.csv").write_text("\n".join(rows))
    arguments = {"path": str(tmp_path / "scans.csv"), "weight": "weight", "channels": 1, "batch_size": 4}
    quick["data"] = {"class_path": "fmnist_cv.data.ManifestDataModule", "init_args": arguments}
    quick["cv"] |= {"n_splits": 2}
    quick["trainer"]["max_epochs"] = 2
    whole = cross_validate(quick, run="whole", console=make_console())
    said = "Training images are drawn by weight, 6 of them never"
    assert f"2 folds of scans.csv (24 images; {said[0].lower()}{said[1:]})" in capsys.readouterr().out
    assert f"{said}; no score is weighted." in summary_lines(whole.summary)
    assert whole.summary["sampling"] == {"by": "weight", "n_never": 6}
    assert whole.summary["out_of_fold_report"]["n"] == 24
    killed(quick, monkeypatch, after_epochs=1, run="killed")
    assert outcome(cross_validate(quick, resume="killed").path) == outcome(whole.path)
    del arguments["weight"]
    with pytest.raises(UserError, match=r"another config: data\.init_args\.weight"):
        cross_validate(quick, resume="killed")
    plain = cross_validate(quick, run="plain")
    assert plain.summary["sampling"] is None and "drawn" not in " ".join(summary_lines(plain.summary))
    remark = "Training images are drawn by weight in tiny/whole, and taken once an epoch in the others."
    assert remark in compare_runs([whole, plain]).remarks
    (tmp_path / "scans.csv").write_text("\n".join([*rows[:-1], "23.png,b,9"]))
    arguments["weight"] = "weight"
    with pytest.raises(UserError, match="was made on other data"):
        cross_validate(quick, resume="killed")
    quick["cv"] = {"workers": 1, "splitter": {"class_path": "KFold", "init_args": {"n_splits": 2}}}
    halves = [rows[0], *(f"{i:02}.png,{'ab'[i % 2]},{int(i < 12)}" for i in range(24))]
    (tmp_path / "scans.csv").write_text("\n".join(halves))
    with pytest.raises(UserError, match="fold_0: all 12 training images have the weight 0"):
        cross_validate(quick, run="nothing")
    assert not (Path(quick["log_dir"]) / "tiny" / "nothing").exists()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_augmentation_in_a_users_data_set_resumes_alike(
    quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    """Its transforms draw from Python's, NumPy's and torch's generators, in this process and in the loader's workers."""
    quick["cv"] |= {"holdout": 0.3}
    module = {"class_path": "plain_data.PlainData", "init_args": {"num_workers": num_workers}}
    quick["data"] = {
        "class_path": "fmnist_cv.data.LightningDataModuleAdapter",
        "init_args": {"module": module, "eval_dataset": "without_augmentation"},
    }
    quick["trainer"]["max_epochs"] = 2
    whole = cross_validate(quick, run="whole")
    killed(quick, monkeypatch, after_epochs=1, run="killed")
    assert outcome(cross_validate(quick, resume="killed").path) == outcome(whole.path)


@pytest.mark.parametrize(
    ("arguments", "rates", "dies_after"),
    [
        ({}, [0.1, 0.1, 0.05, 0.025], 2),
        ({"monitor": "score"}, [0.1, 0.1, 0.05, 0.025], 3),
        ({"monitor": "score", "mode": "max", "every": 2}, [0.1, 0.1, 0.05, 0.025], 1),
        ({"scheduler": {"frequency": 2}}, [0.1, 0.1, 0.1, 0.1, 0.05], 4),
        ({"scheduler": {"monitor": "nothing", "strict": False}}, [0.1] * 3, 1),
        ({"manual": True}, [0.1, 0.1, 0.05, 0.025], 2),
    ],
    ids=str,
)
def test_learning_rates_reduced_on_a_plateau_survive_a_kill(
    quick: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    rates: list[float],
    dies_after: int,
) -> None:
    """In a module that knows nothing of us, on the engine's metrics and its own, however seldom it logs them."""
    quick["cv"] |= {"holdout": 0.3}
    quick["model"] = {"class_path": "users_modules.OnPlateau", "init_args": arguments}
    quick["trainer"]["max_epochs"] = len(rates)
    whole = cross_validate(quick, run="whole")
    history = read_json(whole.path / "fold_0" / "metrics.json")["history"]
    assert [epoch["lr"] for epoch in history] == pytest.approx(rates)
    killed(quick, monkeypatch, after_epochs=dies_after, run="killed")
    assert outcome(cross_validate(quick, resume="killed").path) == outcome(whole.path)


@pytest.mark.parametrize("by_callback", [True, False])
def test_what_an_epoch_unfroze_stays_unfrozen(
    quick: dict[str, Any], monkeypatch: pytest.MonkeyPatch, by_callback: bool
) -> None:
    quick["cv"] |= {"holdout": 0.3}
    quick["model"] = {"class_path": "users_modules.WithBackbone", "init_args": {"unfreezes": not by_callback}}
    if by_callback:
        callback = "lightning.pytorch.callbacks.BackboneFinetuning"
        quick["trainer"]["callbacks"] = {"class_path": callback, "init_args": {"unfreeze_backbone_at_epoch": 1}}
    whole = cross_validate(quick, run="whole")
    killed(quick, monkeypatch, after_epochs=2, run="killed")
    assert outcome(cross_validate(quick, resume="killed").path) == outcome(whole.path)


WARM_UP = {"class_path": "torch.optim.lr_scheduler.LinearLR", "init_args": {"start_factor": 0.1, "total_iters": 1}}
COSINE = {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 3}}
AS_LONG_AS_THE_TRAINING = [
    {"class_path": "fmnist_cv.models.schedules.LinearSchedule", "init_args": {"start_factor": 0.1}},
    {"class_path": "fmnist_cv.models.schedules.CosineSchedule"},
]


@pytest.mark.parametrize(
    ("scheduler", "init_args", "interval", "rates"),
    [
        (
            "torch.optim.lr_scheduler.ReduceLROnPlateau",
            {"patience": 0, "factor": 0.5, "threshold": 1e9, "threshold_mode": "abs"},
            "epoch",
            [0.1, 0.1, 0.05, 0.025],
        ),
        (
            "fmnist_cv.models.schedules.SequentialSchedule",
            {"schedulers": [WARM_UP, COSINE], "milestones": [1]},
            "epoch",
            [0.01, 0.1, 0.075, 0.025],
        ),
        (
            "fmnist_cv.models.schedules.SequentialSchedule",
            {"schedulers": AS_LONG_AS_THE_TRAINING, "milestones": [0.25]},
            "step",
            [0.01, 0.1, 0.075, 0.025],
        ),
    ],
)
def test_schedules_in_yaml_survive_a_kill(
    quick: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    scheduler: str,
    init_args: dict[str, Any],
    interval: str,
    rates: list[float],
) -> None:
    quick["cv"] |= {"holdout": 0.3}
    quick["model"]["init_args"] |= {
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}},
        "lr_scheduler": {"class_path": scheduler, "init_args": init_args},
        "lr_scheduler_interval": interval,
    }
    quick["trainer"]["max_epochs"] = len(rates)
    whole = cross_validate(quick, run="whole")
    history = read_json(whole.path / "fold_0" / "metrics.json")["history"]
    assert [epoch["lr"] for epoch in history] == pytest.approx(rates)
    killed(quick, monkeypatch, after_epochs=2, run="killed")
    assert outcome(cross_validate(quick, resume="killed").path) == outcome(whole.path)


def killed(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, after_epochs: int | str, run: str) -> None:
    """Run in this process until so many epochs are saved, or until the training is over."""

    def die(*args: Any, **kwargs: Any) -> None:
        raise _Killed

    with monkeypatch.context() as patch:
        if after_epochs == "training":
            patch.setattr(fold_module, "score_fold", die)
        else:
            keeper, saved = fold_module.KeepCheckpoints, []
            save = keeper._save

            def save_and_die(self: Any, trainer: Any, better: bool) -> None:
                save(self, trainer, better)
                saved.append(better)
                if len(saved) == after_epochs:
                    raise _Killed

            patch.setattr(keeper, "_save", save_and_die)
        with pytest.raises(_Killed):
            cross_validate(config, run=run)
