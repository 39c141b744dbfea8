"""Creates every Trainer: one process on one device, regardless of a cluster's environment variables."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.plugins import Precision
from lightning.pytorch.profilers import PassThroughProfiler

from fmnist_cv.errors import UserError
from fmnist_cv.utils.lightning_internals import (
    assume_rank_zero,
    defer_plateau_steps,
    ignore_signals,
    resume_at_epoch_start,
    resume_from_given_checkpoint,
)


def make_trainer(**options: Any) -> L.Trainer:
    """A Trainer with these options, and Lightning's defaults for the others, even where PL_TRAINER_* variables differ.

    Lightning detects SLURM, torchelastic, LSF and MPI by environment variables, which a job on a cluster has whether or
    not its processes are meant to be one training; with an explicit environment it does not look for them. It handles no
    signals either: SIGTERM ends the process as SIGKILL does, and the fold resumes after its last epoch.

    Raises:
        UserError: a plugin that spreads the training over processes, or sets the precision.
    """
    plugins = options.get("plugins") or []
    plugins = plugins if isinstance(plugins, list) else [plugins]
    if cluster := next((p for p in plugins if isinstance(p, ClusterEnvironment)), None):
        raise UserError(
            f"trainer.plugins contains {type(cluster).__name__}, but each fold is one process on one device; "
            "leave it out, and spread folds over machines with --cv.fold"
        )
    if precision := next((p for p in plugins if isinstance(p, Precision)), None):
        raise UserError(
            f"trainer.plugins contains {type(precision).__name__}, but a run records its precision by name; give "
            "trainer.precision instead"
        )
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(L.Trainer).parameters.items()
        if parameter.default is not parameter.empty
    }
    assume_rank_zero()
    trainer = L.Trainer(**defaults | options | {"plugins": [*plugins, LightningEnvironment()]})
    ignore_signals(trainer)
    resume_from_given_checkpoint(trainer)
    resume_at_epoch_start(trainer)
    defer_plateau_steps(trainer)
    return trainer


class NoProfiler(PassThroughProfiler):
    """Lightning's default profiler, without creating a generator for each of the 36 actions of a step."""

    _nothing = contextlib.nullcontext()

    def profile(self, action_name: str) -> Any:
        return self._nothing


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppress Lightning's advice on devices and loaders, which does not apply to folds."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", module="torch.utils.data")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
