"""A checkpoint that can be read, but does not hold this fold's states, is refused in one message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from fmnist_cv.engine.callbacks import KeepCheckpoints
from fmnist_cv.engine.run_folder import FoldFolder
from fmnist_cv.errors import UserError


@contextmanager
def explain_restore_errors(folder: FoldFolder) -> Iterator[None]:
    """Turn what goes wrong while states are taken from a fold's last checkpoint into one message.

    Raises:
        UserError: whatever went wrong.
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
    """Have the Trainer refuse a checkpoint that it cannot restore, or of which it would leave something out in silence.

    Args:
        trainer: about to fit from the fold's last checkpoint.
        folder: the fold's.
        keeper: with the history from that checkpoint.
    """
    connector: Any = trainer._checkpoint_connector

    def watched(restore: Callable[[], None], check: Callable[[], None] | None = None) -> Callable[[], None]:
        def restore_and_check() -> None:
            with explain_restore_errors(folder):
                restore()
                if check is not None:
                    check()

        return restore_and_check

    def check_states() -> None:
        saved, epochs = connector._loaded_checkpoint, trainer.fit_loop.epoch_progress.current.ready
        for key, here in (("optimizer_states", trainer.optimizers), ("lr_schedulers", trainer.lr_scheduler_configs)):
            if len(saved[key]) != len(here):
                raise ValueError(f"{len(saved[key])} {key} where there are {len(here)}")
        if epochs != len(keeper.history):
            raise ValueError(f"{epochs} epochs, but a history of {len(keeper.history)}")

    for name in ("restore_model", "restore_datamodule", "restore_callbacks"):
        setattr(connector, name, watched(getattr(connector, name)))
    connector.restore_training_state = watched(connector.restore_training_state, check_states)
