"""Everything that relies on Lightning's internals, each with its reason; no other module touches private attributes.

`tests/utils/test_lightning_internals.py` fails when Lightning changes what is used here, and `pyproject.toml` bounds its
version from above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_only  # type: ignore[attr-defined, unused-ignore]

# Set by Lightning on the module before and after each hook, some 40 times per training step.
HOOK_NAME = "_current_fx_name"

Restore = Callable[[], None]


# -- one process, no signals --------------------------------------------------------------------------------


def assume_rank_zero() -> None:
    """Log and save in this process: Lightning derives its rank from a cluster's variables when it is imported."""
    rank_zero_only.rank = 0  # type: ignore[attr-defined]


def ignore_signals(trainer: L.Trainer) -> None:
    """Install no signal handlers: they would save a checkpoint in the middle of an epoch, and resume from that."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


@contextmanager
def reraise_keyboard_interrupt() -> Iterator[None]:
    """Lightning turns KeyboardInterrupt into SystemExit; turn it back."""
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error


# -- resuming -----------------------------------------------------------------------------------------------


def resume_from_given_checkpoint(trainer: L.Trainer) -> None:
    """Use the checkpoint passed to `fit`: in a SLURM job, Lightning prefers one that a signal made it write."""
    connector = trainer._checkpoint_connector
    connector._select_ckpt_path = lambda _, ckpt_path, **__: ckpt_path  # type: ignore[method-assign]


def resume_at_epoch_start(trainer: L.Trainer) -> None:
    """With max_steps, Lightning resumes inside the epoch that the checkpoint finished, and trains one step too many."""
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]


def guard_restoring(
    trainer: L.Trainer, guard: Callable[[Restore], Restore], check: Callable[[int, int, int], None]
) -> None:
    """Wrap the functions with which Lightning restores states from a checkpoint.

    It has no hook between restoring and training, and zips the saved states with those of the trainer without comparing
    their numbers, so that surplus states are dropped silently.

    Args:
        trainer: about to fit from a checkpoint.
        guard: wraps each function.
        check: called after all states are restored, with the numbers of saved optimizer states, of saved scheduler
            states, and of epochs that the loop has started.
    """
    connector: Any = trainer._checkpoint_connector
    restore_training_state = connector.restore_training_state

    def restore_and_check() -> None:
        restore_training_state()
        saved, epochs = connector._loaded_checkpoint, trainer.fit_loop.epoch_progress.current.ready
        check(len(saved["optimizer_states"]), len(saved["lr_schedulers"]), epochs)

    for name in ("restore_model", "restore_datamodule", "restore_callbacks"):
        setattr(connector, name, guard(getattr(connector, name)))
    connector.restore_training_state = guard(restore_and_check)


# -- schedules ----------------------------------------------------------------------------------------------


def defer_plateau_steps(trainer: L.Trainer) -> None:
    """Do not step schedulers that monitor a metric at the end of an epoch; `step_plateau_schedulers` does.

    Lightning steps them after all callbacks, hence after the epoch's checkpoint was written, and a resumed training would
    lose that step.
    """
    loop = trainer.fit_loop.epoch_loop
    update = loop.update_lr_schedulers

    def update_others(interval: str, update_plateau_schedulers: bool) -> None:
        if interval == "step" or not update_plateau_schedulers:
            update(interval, update_plateau_schedulers)

    loop.update_lr_schedulers = update_others  # type: ignore[method-assign]


def step_plateau_schedulers(trainer: L.Trainer) -> None:
    """Step the schedulers that monitor a metric, as Lightning would do after the epoch."""
    loop = trainer.fit_loop.epoch_loop
    type(loop).update_lr_schedulers(loop, "epoch", update_plateau_schedulers=True)


def load_train_dataloader(trainer: L.Trainer) -> None:
    """Make the training loader before training, as Lightning itself does to count the steps."""
    trainer.fit_loop.setup_data()


# -- the state of the loop ----------------------------------------------------------------------------------


def stops_after_this_epoch(trainer: L.Trainer) -> bool:
    """Whether a stop was requested and min_epochs and min_steps allow it; Lightning keeps the second part to itself."""
    return trainer.should_stop and trainer.fit_loop._can_stop_early


def state_of_checkpoint(trainer: L.Trainer) -> dict[str, Any]:
    """What `save_checkpoint` would write; there is no public way to get it without a file."""
    return trainer._checkpoint_connector.dump_checkpoint()


def ignore_minimum_length(trainer: L.Trainer) -> None:
    """Let a dry run stop after one step whatever min_epochs and min_steps are."""
    trainer.fit_loop.min_epochs = trainer.fit_loop.epoch_loop.min_steps = None


def step_after_this_batch(trainer: L.Trainer) -> None:
    """Make the optimizer step after this batch, however many batches are accumulated."""
    trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True
