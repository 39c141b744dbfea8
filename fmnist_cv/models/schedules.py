"""Learning rate schedules for YAML: composed of other schedules, and by default as long as the training.

A number of steps or epochs that is left out (null) lasts until the next milestone or the end of the training, both in
folds and in the refit: `T_max` and `total_iters` of the schedules here, `total_steps` of torch's OneCycleLR.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import lightning as L
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from fmnist_cv.errors import UserError
from fmnist_cv.utils.lightning_internals import load_train_dataloader

LENGTHS = ("total_steps", "T_max", "total_iters")


class SequentialSchedule(lr_scheduler.SequentialLR):
    """torch's SequentialLR, which creates its schedulers itself, so that it can be written in YAML.

    Args:
        optimizer: the optimizer.
        schedulers: each creates a scheduler from the optimizer; in YAML, each is a class_path and init_args.
        milestones: the start of the second scheduler, the third, etc.: an epoch or step, or a fraction of the training (0.1).
        length: their total length; by default the training's.

    Raises:
        UserError: milestones that are not increasing, or too many or few of them.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: list[Callable[[Optimizer], LRScheduler]],
        milestones: list[int | float],
        length: int | None = None,
    ) -> None:
        if length is None and any(isinstance(milestone, float) for milestone in milestones):
            raise RuntimeError("milestones are fractions of the training, whose length its Trainer knows")
        starts = [m if isinstance(m, int) else max(1, round(m * (length or 0))) for m in milestones]
        if starts != sorted({*starts}) or (starts and starts[0] < 1):
            raise UserError(f"SequentialSchedule: milestones are {milestones}; each must be above the one before it")
        if len(starts) != len(schedulers) - 1:
            raise UserError(
                f"SequentialSchedule: {len(schedulers)} schedulers need {len(schedulers) - 1} milestones, not {len(starts)}"
            )
        ends = [*starts, length]
        lengths = [None if end is None else max(1, end - start) for start, end in zip([0, *starts], ends, strict=True)]
        made = [make_scheduler(make, optimizer, n) for make, n in zip(schedulers, lengths, strict=True)]
        super().__init__(optimizer, made, starts)


class ChainedSchedule(lr_scheduler.ChainedScheduler):
    """torch's ChainedScheduler, which creates its schedulers itself, so that it can be written in YAML.

    Args:
        optimizer: the optimizer.
        schedulers: each creates a scheduler from the optimizer; in YAML, each is a class_path and init_args.
        length: of a scheduler that leaves its own out; by default the training's.
    """

    def __init__(
        self, optimizer: Optimizer, schedulers: list[Callable[[Optimizer], LRScheduler]], length: int | None = None
    ) -> None:
        super().__init__([make_scheduler(make, optimizer, length) for make in schedulers], optimizer)


class CosineSchedule(lr_scheduler.CosineAnnealingLR):
    """torch's CosineAnnealingLR, by default as long as the training.

    Args:
        optimizer: the optimizer.
        T_max: epochs or steps until `eta_min` is reached; null for the next milestone or the end of the training.
        eta_min: the smallest learning rate.
    """

    def __init__(self, optimizer: Optimizer, T_max: int | None = None, eta_min: float = 0.0) -> None:
        super().__init__(optimizer, _known(T_max, "T_max"), eta_min)


class LinearSchedule(lr_scheduler.LinearLR):
    """torch's LinearLR, by default as long as the training: a warm-up, or a decay with `end_factor` below 1.

    Args:
        optimizer: the optimizer.
        start_factor: times the optimizer's learning rate at the beginning.
        end_factor: times the optimizer's learning rate at the end.
        total_iters: epochs or steps from one to the other; null for the next milestone or the end of the training.
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int | None = None
    ) -> None:
        super().__init__(optimizer, start_factor, end_factor, _known(total_iters, "total_iters"))


def make_scheduler(make: Callable[..., LRScheduler], optimizer: Optimizer, length: int | None = None) -> LRScheduler:
    """Create a scheduler; a length that it leaves out (None) is replaced by `length`.

    Args:
        make: creates it from the optimizer; for a class named in YAML a `functools.partial` with its arguments.
        optimizer: the optimizer.
        length: epochs or steps.
    """
    left_out = _left_out(make)
    return make(optimizer, **dict.fromkeys(left_out, length)) if length is not None else make(optimizer)


def needs_length(make: Callable[..., LRScheduler]) -> bool:
    """Whether a scheduler, or a part of it, leaves out its length or gives it in fractions of the training."""
    given = getattr(make, "keywords", {})
    return (
        any(name != "length" for name in _left_out(make))
        or any(needs_length(part) for part in given.get("schedulers", ()))
        or any(isinstance(milestone, float) for milestone in given.get("milestones", ()))
    )


def training_length(trainer: L.Trainer, interval: str) -> float:
    """Epochs ("epoch") or steps of the optimizer ("step") of the training; infinite if only time limits it."""
    steps = trainer.estimated_stepping_batches
    if interval == "step" or math.isinf(steps):
        return steps
    if trainer.train_dataloader is None:  # as Lightning itself does to estimate the steps
        load_train_dataloader(trainer)
    return math.ceil(steps / math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches))


def _left_out(make: Callable[..., LRScheduler]) -> list[str]:
    given = getattr(make, "keywords", {})
    if given.get("epochs") is not None:  # the other arguments for the length of OneCycleLR
        return []
    return [name for name in (*LENGTHS, "length") if name in given and given[name] is None]


def _known(length: int | None, name: str) -> int:
    if length is None:
        raise RuntimeError(f"{name} is left out: it is the length of the training, which its Trainer knows")
    return length
