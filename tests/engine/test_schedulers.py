"""Optimizers and schedulers that would fail later in the training are refused before it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.optim import lr_scheduler
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
)
from torch.utils.data import DataLoader, TensorDataset

from fmnist_cv import cross_validate, fit
from fmnist_cv.command_line import USER_ERROR
from fmnist_cv.engine.schedulers import check_optimizers
from fmnist_cv.errors import UserError

STEPS, EPOCHS = 5, 4  # steps in an epoch; the training has 20


class Net(L.LightningModule):
    def __init__(self, configure: Callable[[Any], Any]) -> None:
        super().__init__()
        self.layer, self.configure = torch.nn.Linear(2, 2), configure

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch[0]).sum()

    def configure_optimizers(self) -> Any:
        return self.configure(self)


class Checked(Exception):
    """Nothing was refused."""


class Checks(L.Callback):
    def __init__(self, is_refit: bool) -> None:
        self.is_refit = is_refit

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        check_optimizers(trainer, pl_module, self.is_refit)
        raise Checked


def refusal(configure: Callable[[Any], Any], is_refit: bool = False, **options: Any) -> str | None:
    """The error message for a module with these optimizers, or None."""
    trainer = L.Trainer(
        **{"max_epochs": EPOCHS, **options},
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[Checks(is_refit)],
    )
    try:
        trainer.fit(Net(configure), DataLoader(TensorDataset(torch.zeros(STEPS, 2))))
    except Checked:
        return None
    except UserError as error:
        return str(error)
    raise AssertionError


def schedule(make: Callable[[Any], Any], **options: Any) -> Callable[[Any], Any]:
    def configure(module: Any) -> Any:
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": make(optimizer), **options}}

    return configure


def sequence(makes: list[Callable[[Any], Any]], milestones: list[int]) -> Callable[[Any], Any]:
    return lambda optimizer: SequentialLR(optimizer, [make(optimizer) for make in makes], milestones)


def one_cycle(total: int) -> Callable[[Any], Any]:
    return partial(OneCycleLR, max_lr=1.0, total_steps=total)


def chain(makes: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    return lambda optimizer: ChainedScheduler([make(optimizer) for make in makes])


CONSTANT = partial(ConstantLR, total_iters=3)
FITTING = {
    "one cycle": schedule(one_cycle(20), interval="step"),
    "one cycle by epoch": schedule(one_cycle(EPOCHS)),
    "every second step": schedule(one_cycle(10), interval="step", frequency=2),
    "one cycle after a warm-up": schedule(sequence([CONSTANT, one_cycle(17)], [3]), interval="step"),
    "one cycle cut short": schedule(sequence([one_cycle(6), CONSTANT], [6]), interval="step"),
    "cosine by step": schedule(partial(CosineAnnealingLR, T_max=20), interval="step"),
    "cosine by step before another": schedule(
        sequence([partial(CosineAnnealingLR, T_max=6), CONSTANT], [6]), interval="step"
    ),
    "warm-up by step": schedule(partial(LinearLR, total_iters=3), interval="step"),
    "without an end": schedule(partial(ExponentialLR, gamma=0.9), interval="step"),
    "plateau": schedule(ReduceLROnPlateau, monitor="train/loss"),
    "plateau on a metric of its own": schedule(partial(ReduceLROnPlateau, mode="max"), monitor="loss", interval="step"),
}
TOO_SHORT = {
    "one cycle": (schedule(one_cycle(19), interval="step"), "OneCycleLR ends after 19 steps (total_steps 19)"),
    "one cycle by epoch": (schedule(one_cycle(3)), "OneCycleLR ends after 3 epochs (total_steps 3)"),
    "every second step": (
        schedule(one_cycle(9), interval="step", frequency=2),
        "OneCycleLR ends after 18 steps (total_steps 9)",
    ),
    "after a warm-up": (
        schedule(sequence([CONSTANT, one_cycle(16)], [3]), interval="step"),
        "OneCycleLR ends after 19 steps",
    ),
    "before another": (schedule(sequence([one_cycle(5), CONSTANT], [6]), interval="step"), "ends after 5 steps"),
    "chained": (schedule(chain([CONSTANT, one_cycle(19)]), interval="step"), "OneCycleLR ends after 19 steps"),
}
SHORT_FOR_A_REFIT = {
    "cosine": (
        partial(CosineAnnealingLR, T_max=16),
        "CosineAnnealingLR ends after 16 steps (T_max 16), but the refit has 20",
    ),
    "cosine after a warm-up": (sequence([CONSTANT, partial(CosineAnnealingLR, T_max=13)], [3]), "ends after 16 steps"),
    "polynomial": (partial(PolynomialLR, total_iters=16), "PolynomialLR ends after 16 steps (total_iters 16)"),
    "linear decay": (
        partial(LinearLR, start_factor=1.0, end_factor=0.1, total_iters=16),
        "LinearLR ends after 16 steps (total_iters 16)",
    ),
}


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("is_refit", [False, True])
def test_schedules_that_are_long_enough_are_accepted(name: str, is_refit: bool) -> None:
    assert refusal(FITTING[name], is_refit) is None


@pytest.mark.parametrize("name", TOO_SHORT)
@pytest.mark.parametrize("is_refit", [False, True])
def test_schedules_that_end_too_early_are_refused(name: str, is_refit: bool) -> None:
    configure, reason = TOO_SHORT[name]
    message = refusal(configure, is_refit)
    assert message is not None and reason in message
    assert "leave it out (null), or use the schedules of fmnist_cv.models.schedules" in message


@pytest.mark.parametrize("name", SHORT_FOR_A_REFIT)
def test_schedules_in_steps_of_the_folds_are_refused_for_a_refit_alone(name: str) -> None:
    """Where they count epochs, the refit has no more than the folds."""
    make, reason = SHORT_FOR_A_REFIT[name]
    assert refusal(schedule(make, interval="step")) is None
    assert reason in (refusal(schedule(make, interval="step"), is_refit=True) or "")
    assert refusal(schedule(make, interval="epoch"), is_refit=True) is None


@pytest.mark.parametrize(
    ("limits", "is_refit", "refused"),
    [
        ({"max_epochs": -1, "max_steps": 7}, False, False),
        ({"max_epochs": -1, "max_steps": 7}, True, True),  # it ends after the folds' epochs, whatever their steps
        ({"max_epochs": -1, "max_time": "00:00:00:01"}, False, True),
        ({"accumulate_grad_batches": 3}, False, False),
        ({"limit_train_batches": 1}, False, False),
    ],
)
def test_the_steps_are_counted_as_they_will_be_taken(limits: dict[str, Any], is_refit: bool, refused: bool) -> None:
    message = refusal(schedule(one_cycle(8), interval="step"), is_refit, **limits)
    assert ("may have more" in message) if message else not refused


@pytest.mark.parametrize(
    ("make", "options", "is_refit", "reason"),
    [
        (ReduceLROnPlateau, {"monitor": "val/accuracy"}, False, "with the mode 'min'.*give it the mode 'max'"),
        (partial(ReduceLROnPlateau, mode="max"), {"monitor": "train/loss"}, False, "give it the mode 'min'"),
        (ReduceLROnPlateau, {"monitor": "val/loss", "interval": "step"}, False, "only known after an epoch"),
        (ReduceLROnPlateau, {"monitor": "val/loss"}, True, "the refit trains on all images.*monitor 'train/loss'"),
        (ReduceLROnPlateau, {"monitor": "val/f1"}, True, "monitors 'val/f1', but the refit"),
        (sequence([sequence([CONSTANT, CONSTANT], [2]), CONSTANT], [3]), {}, False, "SequentialLR cannot hold a Sequ"),
        (sequence([CONSTANT, chain([CONSTANT])], [3]), {}, False, "SequentialLR cannot hold a ChainedScheduler"),
    ],
)
def test_contradictory_monitors_are_reported(make: Any, options: dict[str, Any], is_refit: bool, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        raise UserError(refusal(schedule(make, **options), is_refit) or "")


def test_torchs_own_sequence_fails_where_we_refuse_it() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = sequence([CONSTANT, chain([CONSTANT])], [1])(optimizer)
    optimizer.step()
    with pytest.raises(NotImplementedError):
        scheduler.step()


def test_torchs_one_cycle_takes_as_many_steps_as_we_allow() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=3)
    optimizer.step()
    for _ in range(3):
        scheduler.step()
    with pytest.raises(ValueError, match="Tried to step 4 times"):
        scheduler.step()


@pytest.mark.parametrize("returned", [None, []])
def test_a_module_without_an_optimizer_needs_parameters_to_be_frozen(returned: Any) -> None:
    if returned is None:
        message = refusal(lambda module: returned)
        assert message is not None
        assert "configure_optimizers of Net returns no optimizer" in message and "return the optimizer" in message

    def frozen(module: Any) -> Any:
        module.requires_grad_(False)
        module.automatic_optimization = False
        return returned

    assert refusal(frozen) is None


# -- before there is a run ----------------------------------------------------------------------------------

ONE_CYCLE = {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.1}}
PLATEAU = {"class_path": "torch.optim.lr_scheduler.ReduceLROnPlateau"}


def in_steps(total: int | None) -> dict[str, Any]:
    """Three folds of 200 images in batches of 32 have 7 steps in each of 3 epochs; the refit has 10."""
    scheduler = {**ONE_CYCLE, "init_args": {**ONE_CYCLE["init_args"], "total_steps": total}}  # type: ignore[dict-item]
    return {"lr_scheduler": scheduler, "lr_scheduler_interval": "step"}


@pytest.mark.parametrize(
    ("model", "refit", "reason"),
    [
        (in_steps(20), False, "OneCycleLR ends after 20 steps (total_steps 20), but the training has 21"),
        (in_steps(21), True, "OneCycleLR ends after 21 steps (total_steps 21), but the refit has 30"),
        ({"lr_scheduler": PLATEAU}, True, "monitors 'val/loss', but the refit trains on all images"),
        ({"lr_scheduler": PLATEAU, "lr_scheduler_monitor": "val/los"}, False, "monitors 'val/los', which nothing logs"),
        ("users_modules.ConfiguresCallbacks", False, "the callback AveragesByItself swaps the weights"),
        (
            "users_modules.ForgetsItsOptimizer",
            False,
            "configure_optimizers of ForgetsItsOptimizer returns no optimizer",
        ),
        ("users_modules.OnPlateau", True, "monitors 'val/loss', but the refit trains on all images"),
    ],
)
def test_a_schedule_is_refused_before_the_run_is_created(
    quick: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model: dict[str, Any] | str,
    refit: bool,
    reason: str,
) -> None:
    if isinstance(model, dict):
        quick["model"]["init_args"] |= model
    else:
        quick["model"] = {"class_path": model, "init_args": {"averages": True} if "Callbacks" in model else {}}
    arguments = ["--config", str(write_config(quick)), *(["--refit"] if refit else [])]
    assert fit.main(arguments) == USER_ERROR
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and reason in captured.err and "Traceback" not in captured.err
    assert not (tmp_path / "logs").exists()


def test_an_unset_length_fits_the_folds_and_the_refit(quick: dict[str, Any]) -> None:
    quick["model"]["init_args"] |= in_steps(None)
    run = cross_validate(quick, refit=True).path
    for name, steps in (("fold_0", 7), ("refit", 10)):
        checkpoint = torch.load(run / name / "last.ckpt", weights_only=True)
        (state,) = checkpoint["lr_schedulers"]
        assert state["total_steps"] == state["last_epoch"] == checkpoint["global_step"]
        assert checkpoint["global_step"] == steps * (checkpoint["epoch"] + 1)


def test_a_refit_of_a_trained_run_is_refused_at_once(quick: dict[str, Any]) -> None:
    quick["model"]["init_args"] |= in_steps(21)
    run = cross_validate(quick, run="trained").path
    with pytest.raises(UserError, match=r"OneCycleLR ends after 21 steps .*, but the refit has 30"):
        cross_validate(quick, resume="trained", refit=True)
    assert not (run / "refit").exists()


def test_the_longest_fold_decides(quick: dict[str, Any]) -> None:
    """Of 301 images, one fold trains on 200 and two on 201, which is a step more with batches of 40."""
    quick["data"]["init_args"] |= {"n_train": 301, "batch_size": 40}
    quick["cv"]["stratify"] = False
    quick["model"]["init_args"] |= in_steps(15)
    with pytest.raises(UserError, match=r"^OneCycleLR ends after 15 steps .*, but the training has 18"):
        cross_validate(quick)
