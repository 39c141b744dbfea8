"""Checks of the optimizers and schedulers that a module returns, and the steps of those that monitor a metric."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import lightning as L
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim import lr_scheduler

from fmnist_cv.config.sections import OWN_METRICS
from fmnist_cv.errors import UserError
from fmnist_cv.models.schedules import training_length
from fmnist_cv.utils.lightning_internals import step_plateau_schedulers

LEFT_OUT = (
    "leave it out (null), or use the schedules of fmnist_cv.models.schedules, which last as long as the training; "
    "in a module of your own, take self.trainer.estimated_stepping_batches"
)


def check_optimizers(trainer: L.Trainer, module: L.LightningModule, is_refit: bool) -> None:
    """Refuse optimizers that train nothing, and schedules that would fail or misbehave later in the training.

    Args:
        trainer: about to train.
        module: what it trains.
        is_refit: no images are held out.

    Raises:
        UserError: with the reason and what to write instead.
    """
    n_trainable = sum(parameter.requires_grad for parameter in module.parameters())
    if n_trainable and not any(optimizer.param_groups for optimizer in trainer.optimizers):
        raise UserError(
            f"configure_optimizers of {type(module).__name__} returns no optimizer, so that its {n_trainable} parameters "
            "would not be trained, or not resumed with the state of an optimizer kept elsewhere; return the optimizer"
        )
    if not module.automatic_optimization:  # the module steps its schedulers itself
        return
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau:
            _check_monitor(config, is_refit)
            continue
        planned = training_length(trainer, config.interval)
        if is_refit and config.interval == "step" and trainer.max_steps != -1:
            planned = math.inf  # limited by the folds' best epochs, which are not known yet
        _check_length(config, planned, is_refit)


def _check_monitor(config: LRSchedulerConfig, is_refit: bool) -> None:
    name, monitor, mode = type(config.scheduler).__name__, str(config.monitor), getattr(config.scheduler, "mode", None)
    if monitor in OWN_METRICS:
        if config.interval == "step":
            raise UserError(
                f"{name} monitors '{monitor}' in each step, but that is only known after an epoch; "
                'give it the interval "epoch"'
            )
        best = "min" if monitor.endswith("loss") else "max"
        if mode not in (None, best):
            raise UserError(
                f"{name} monitors '{monitor}' with the mode '{mode}', but its best value is the {best}; "
                f"give it the mode '{best}'"
            )
    if is_refit and config.strict and monitor.startswith("val/"):
        raise UserError(
            f"{name} monitors '{monitor}', but the refit trains on all images and holds none out; monitor "
            "'train/loss' instead (model.lr_scheduler_monitor), or leave out --refit"
        )


def _check_length(config: LRSchedulerConfig, planned: float, is_refit: bool) -> None:
    for scheduler, begins, ends in _parts(config.scheduler):
        argument, length, fails_beyond = _length(scheduler)
        if length is None or not (fails_beyond or (is_refit and config.interval == "step")):
            continue
        lasts = (begins + length) * config.frequency
        if lasts < min(planned, ends * config.frequency):
            raise UserError(
                f"{type(scheduler).__name__} ends after {lasts} {config.interval}s ({argument} {length}), but "
                f"{'the refit' if is_refit else 'the training'} "
                f"{f'has {planned:.0f}' if math.isfinite(planned) else 'may have more'}; {LEFT_OUT}"
            )


def _parts(scheduler: Any, begins: int = 0, ends: float = math.inf) -> Iterator[tuple[Any, int, float]]:
    """A scheduler, or those that it consists of, with the first and last step of each."""
    if isinstance(scheduler, lr_scheduler.SequentialLR):
        for part in scheduler._schedulers:
            if isinstance(part, lr_scheduler.SequentialLR | lr_scheduler.ChainedScheduler):  # fails at the milestone
                raise UserError(
                    f"{type(scheduler).__name__} cannot hold a {type(part).__name__}; write the schedulers and "
                    "milestones of both into one list"
                )
        starts = [begins + milestone for milestone in (0, *scheduler._milestones)]
        for part, start, end in zip(scheduler._schedulers, starts, [*starts[1:], ends], strict=True):
            yield from _parts(part, start, min(end, ends))
    elif isinstance(scheduler, lr_scheduler.ChainedScheduler):
        for part in scheduler._schedulers:
            yield from _parts(part, begins, ends)
    else:
        yield scheduler, begins, ends


def _length(scheduler: Any) -> tuple[str, int | None, bool]:
    """(argument, length or None for a schedule without an end, whether stepping beyond it fails)."""
    match scheduler:
        case lr_scheduler.OneCycleLR():
            return "total_steps", scheduler.total_steps, True
        case lr_scheduler.CosineAnnealingLR():  # the learning rate would rise again
            return "T_max", scheduler.T_max, False
        case lr_scheduler.PolynomialLR():
            return "total_iters", scheduler.total_iters, False
        case lr_scheduler.LinearLR() if scheduler.end_factor < scheduler.start_factor:
            return "total_iters", scheduler.total_iters, False
    return "", None, False


# -- ReduceLROnPlateau --------------------------------------------------------------------------------------


def step_plateaus(trainer: L.Trainer) -> None:
    """Step the schedulers that monitor a metric; the Trainer leaves that to the engine.

    Raises:
        UserError: the metric is not logged.
    """
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and config.strict and config.monitor not in trainer.callback_metrics:
            raise UserError(
                f"{type(config.scheduler).__name__} monitors '{config.monitor}', which nothing logs; "
                f"there are {', '.join(sorted(trainer.callback_metrics))}"
            )
    step_plateau_schedulers(trainer)
