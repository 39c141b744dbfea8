"""ReduceLROnPlateau, wherever it comes from: stepped before an epoch's checkpoint is written, not after it."""

from __future__ import annotations

import lightning as L

from fmnist_cv.errors import UserError


def step_plateaus_when_told(trainer: L.Trainer) -> None:
    """Keep Lightning from stepping schedulers that monitor a metric at the end of an epoch.

    It would do so after all callbacks, hence after the epoch's checkpoint was written, and a resumed training would
    lose a step. `step_plateaus` does it instead.
    """
    update = trainer.fit_loop.epoch_loop.update_lr_schedulers

    def update_others(interval: str, update_plateau_schedulers: bool) -> None:
        if interval == "step" or not update_plateau_schedulers:
            update(interval, update_plateau_schedulers)

    trainer.fit_loop.epoch_loop.update_lr_schedulers = update_others  # type: ignore[method-assign]


def step_plateaus(trainer: L.Trainer) -> None:
    """Step the schedulers that monitor a metric, as Lightning would have done after the epoch.

    Raises:
        UserError: the metric is not logged.
    """
    loop = trainer.fit_loop.epoch_loop
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and config.strict and config.monitor not in trainer.callback_metrics:
            raise UserError(
                f"{type(config.scheduler).__name__} monitors '{config.monitor}', which nothing logs; "
                f"there are {', '.join(sorted(trainer.callback_metrics))}"
            )
    type(loop).update_lr_schedulers(loop, "epoch", update_plateau_schedulers=True)
