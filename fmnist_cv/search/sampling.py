"""Optuna kept quiet, and a sampler whose draws depend on (seed, count of configurations), however often it is interrupted."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GridSampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

# A study's attribute: draws are numbered by their count from this trial on, and before it by the trials' numbers, as
# studies once were.
COUNTED_FROM = "draws_counted_from"


def draw_number(trial: FrozenTrial, trials: Sequence[FrozenTrial], counted_from: int) -> int:
    """How many configurations were drawn before this trial's; a trial that is run again has the draw of its first run."""
    first = next(iter(RetryHeartbeatStaleTrialCallback.retry_history(trial)), trial.number)
    if first < counted_from:
        return first
    drawn = (t for t in trials if not RetryHeartbeatStaleTrialCallback.retry_history(t))
    return counted_from + sum(counted_from <= t.number < first for t in drawn)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's own lines and its warnings of what is experimental out of the output; the display says it all."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used")
            yield
    finally:
        optuna.logging.set_verbosity(before)


class SeededByDraw(BaseSampler):
    """Takes a new sampler for each trial, so that neither another worker nor a restart repeats random numbers.

    Seeds and points of a grid go by the count of configurations, not by the trials' numbers, which interruptions use up:
    an interrupted study draws what an undisturbed one would, as far as the sampler does not look at other trials.

    Args:
        make: the sampler for a configuration, by the number of its draw.
    """

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        self._make = make
        self._inner = make(0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        trials = study.get_trials(deepcopy=False)
        self._inner = self._make(draw_number(trial, trials, study.user_attrs.get(COUNTED_FROM, 0)))
        if isinstance(self._inner, GridSampler):  # it takes the point that the trial's number names
            taken = {t.system_attrs.get("grid_id") for t in trials}
            trial = copy.copy(trial)
            trial.number = next(point for point in itertools.count() if point not in taken)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        if not isinstance(self._inner, GridSampler):  # which would stop Optuna's own loop, and there is none
            self._inner.after_trial(study, trial, state, values)
