"""Schedules that YAML can write: the rates they give, and how long they last."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, ExponentialLR, LinearLR, OneCycleLR

from fmnist_cv import SyntheticDataModule
from fmnist_cv.errors import UserError
from fmnist_cv.models import LinearClassifier
from fmnist_cv.models.schedules import (
    ChainedSchedule,
    CosineSchedule,
    LinearSchedule,
    SequentialSchedule,
    make_scheduler,
    needs_length,
)

MakeTrainer = Callable[..., L.Trainer]


def rates(make: Callable[..., Any], steps: int, length: int | None = None) -> list[float]:
    """The learning rates of so many epochs; the optimiser's own is 1."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make_scheduler(make, optimizer, length)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


WARM_UP = partial(LinearSchedule, start_factor=0.2, total_iters=None)
COSINE = partial(CosineSchedule, T_max=None)


def sequence(schedulers: list[Any], milestones: list[int | float]) -> Any:
    """As the parser makes it of YAML: with all arguments, given or not."""
    return partial(SequentialSchedule, schedulers=schedulers, milestones=milestones, length=None)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (sequence([WARM_UP, COSINE], [2]), [0.2, 0.6, 1.0, 0.75, 0.25]),
        (sequence([WARM_UP, COSINE], [0.4]), [0.2, 0.6, 1.0, 0.75, 0.25]),
        (sequence([WARM_UP, partial(CosineAnnealingLR, T_max=3)], [2]), [0.2, 0.6, 1.0, 0.75, 0.25]),
        (sequence([partial(ConstantLR, factor=0.5, total_iters=9), COSINE], [3]), [0.5, 0.5, 0.5, 1.0, 0.5]),
        (sequence([WARM_UP, COSINE, COSINE], [1, 3]), [0.2, 1.0, 0.5, 1.0, 0.5]),
        (
            sequence([partial(LinearSchedule, start_factor=1.0, end_factor=0.0, total_iters=None)], []),
            [1.0, 0.8, 0.6, 0.4, 0.2],
        ),
        (
            partial(ChainedSchedule, schedulers=[WARM_UP, partial(ExponentialLR, gamma=0.5)], length=None),
            [0.2, 0.18, 0.13, 0.085, 0.0525],
        ),
        (partial(LinearLR, start_factor=0.5, total_iters=2), [0.5, 0.75, 1.0, 1.0, 1.0]),
    ],
)
def test_the_rates_of_five_epochs(make: Any, expected: list[float]) -> None:
    assert rates(make, 5, 5) == pytest.approx(expected)


def test_a_fraction_of_a_short_training_is_at_least_one_epoch() -> None:
    assert rates(sequence([WARM_UP, COSINE], [0.1]), 2, 2) == pytest.approx([0.2, 1.0])


def test_what_lasts_shorter_than_the_milestone_still_works() -> None:
    assert rates(sequence([WARM_UP, COSINE], [4]), 2, 2) == pytest.approx([0.2, 0.4])


@pytest.mark.parametrize("milestones", [[], [1, 2], [0], [-1]])
def test_milestones_that_cannot_be_meant_are_refused(milestones: list[int | float]) -> None:
    with pytest.raises(UserError, match=r"SequentialSchedule: .*milestones"):
        rates(sequence([WARM_UP, COSINE], milestones), 1, 5)


def test_milestones_rise() -> None:
    with pytest.raises(UserError, match=r"milestones are \[3, 2\]; each must be above the one before it"):
        rates(sequence([WARM_UP, COSINE, COSINE], [3, 2]), 1, 5)


@pytest.mark.parametrize(
    ("make", "needed"),
    [
        (WARM_UP, True),
        (COSINE, True),
        (partial(CosineSchedule, T_max=3), False),
        (partial(OneCycleLR, max_lr=1.0, total_steps=None), True),
        (partial(OneCycleLR, max_lr=1.0, total_steps=None, epochs=2, steps_per_epoch=3), False),
        (sequence([partial(ConstantLR)], []), False),
        (sequence([partial(ConstantLR), COSINE], [1]), True),
        (sequence([partial(ConstantLR), partial(ConstantLR)], [0.5]), True),
        (lambda optimizer: ConstantLR(optimizer), False),
    ],
)
def test_the_length_is_asked_for_where_it_is_left_out(make: Any, needed: bool) -> None:
    assert needs_length(make) is needed


@pytest.mark.parametrize(
    ("interval", "limits", "length"),
    [
        ("step", {"max_epochs": 2}, 10),
        ("step", {"max_epochs": 2, "accumulate_grad_batches": 3}, 4),
        ("step", {"max_epochs": 2, "limit_train_batches": 4}, 8),
        ("step", {"max_epochs": -1, "max_steps": 10}, 10),
        ("epoch", {"max_epochs": 3}, 3),
        ("epoch", {"max_epochs": -1, "max_steps": 10}, 2),
    ],
)
def test_the_training_says_how_long(trainer: MakeTrainer, interval: Any, limits: dict[str, Any], length: int) -> None:
    model = LinearClassifier(
        lr_scheduler=partial(OneCycleLR, max_lr=1.0, total_steps=None), lr_scheduler_interval=interval
    )
    made = trainer(**limits)
    made.fit(model, datamodule=SyntheticDataModule(n_train=200, batch_size=32))
    assert made.lr_scheduler_configs[0].scheduler.total_steps == length
    assert made.lr_scheduler_configs[0].scheduler.last_epoch == length  # not one step too many or too few


def test_a_training_that_only_time_limits_has_no_length(trainer: MakeTrainer) -> None:
    model = LinearClassifier(lr_scheduler=COSINE)
    with pytest.raises(UserError, match=r"leaves its length out.*set trainer\.max_epochs or trainer\.max_steps"):
        trainer(max_epochs=-1, max_time="00:00:00:01").fit(model, datamodule=SyntheticDataModule(n_train=200))


def test_without_a_trainer_there_is_no_length() -> None:
    with pytest.raises(RuntimeError, match="not attached to a `Trainer`"):
        LinearClassifier(lr_scheduler=COSINE).configure_optimizers()
    with pytest.raises(RuntimeError, match="T_max is left out"):
        CosineSchedule(SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0))
