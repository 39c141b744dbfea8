"""Refuses a checkpoint that can be read, but does not hold the states of this fold, with one error message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from fmnist_cv.engine.callbacks import KeepCheckpoints
from fmnist_cv.engine.run_folder import FoldFolder
from fmnist_cv.errors import UserError
from fmnist_cv.utils.lightning_internals import guard_restoring


@contextmanager
def explain_restore_errors(folder: FoldFolder) -> Iterator[None]:
    """Turn errors while states are restored from a fold's last checkpoint into one message.

    Raises:
        UserError: the states do not fit.
    """
    try:
        yield
    except torch.OutOfMemoryError:  # not the checkpoint's fault
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, MisconfigurationException) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(
            f"the checkpoint {folder.last_checkpoint} is not one of this fold ({reason}); {folder.retrain_hint}"
        ) from None


def watch_restoring(trainer: L.Trainer, folder: FoldFolder, keeper: KeepCheckpoints) -> None:
    """Make the Trainer refuse a checkpoint that it cannot restore, or of which it would silently drop something.

    Args:
        trainer: about to fit from the fold's last checkpoint.
        folder: the fold's.
        keeper: with the history from that checkpoint.
    """

    def explained(restore: Callable[[], None]) -> Callable[[], None]:
        def call() -> None:
            with explain_restore_errors(folder):
                restore()

        return call

    def check(n_optimizer_states: int, n_scheduler_states: int, n_epochs: int) -> None:
        for what, saved, here in (
            ("optimizer states", n_optimizer_states, len(trainer.optimizers)),
            ("scheduler states", n_scheduler_states, len(trainer.lr_scheduler_configs)),
            ("epochs", n_epochs, len(keeper.history)),
        ):
            if saved != here:
                raise ValueError(f"it has {saved} {what}, expected {here}")

    guard_restoring(trainer, explained, check)
