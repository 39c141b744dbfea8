"""The one place that makes a Trainer: one process on one device, whatever a cluster's environment variables say."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import lightning as L
from lightning.pytorch.plugins import Precision
from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from fmnist_cv.errors import UserError


def make_trainer(**options: Any) -> L.Trainer:
    """A Trainer with these options, and Lightning's defaults for the others, even where PL_TRAINER_* variables differ.

    Lightning looks for SLURM, torchelastic, LSF and MPI by environment variables, which a job on a cluster has whether
    or not the processes are meant to be one training. A cluster environment that is given is not looked for. Nor does
    Lightning handle signals: at a queue's signal it would write a checkpoint in the middle of an epoch and resume from
    that; here SIGTERM ends the process as SIGKILL does, and the fold resumes from its last epoch.

    Raises:
        UserError: a plugin that spreads the training over processes, or sets the precision.
    """
    plugins = options.get("plugins") or []
    plugins = plugins if isinstance(plugins, list) else [plugins]
    if cluster := next((p for p in plugins if isinstance(p, ClusterEnvironment)), None):
        raise UserError(
            f"trainer.plugins holds {type(cluster).__name__}, but each fold is one process on one device; "
            "leave it out, and spread folds over machines with --cv.fold"
        )
    if precision := next((p for p in plugins if isinstance(p, Precision)), None):
        raise UserError(
            f"trainer.plugins holds {type(precision).__name__}, but a run records its precision by name; give "
            "trainer.precision instead"
        )
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(L.Trainer).parameters.items()
        if parameter.default is not parameter.empty
    }
    rank_zero_only.rank = 0  # type: ignore[attr-defined]  # set from the environment when Lightning was imported
    trainer = L.Trainer(**defaults | options | {"plugins": [*plugins, LightningEnvironment()]})
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    # In a SLURM job Lightning would prefer a checkpoint that a signal made it write.
    trainer._checkpoint_connector._select_ckpt_path = lambda _, ckpt_path, **__: ckpt_path  # type: ignore[method-assign]
    # With max_steps, Lightning resumes inside the epoch that the checkpoint finished, and trains a step too many.
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
    return trainer


class NoProfiler(PassThroughProfiler):
    """Lightning's default, without a new generator for each of the 36 actions of a step."""

    _nothing = contextlib.nullcontext()

    def profile(self, action_name: str) -> Any:
        return self._nothing


@contextlib.contextmanager
def reraise_keyboard_interrupt() -> Iterator[None]:
    """Lightning turns Ctrl-C into SystemExit; turn it back."""
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advice out of the output: what it says of devices and loaders does not fit folds."""
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
