"""A sampler whose draws depend on the seed and the count of configurations alone, however often a study is interrupted."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GridSampler
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from fmnist_cv.search.optuna_internals import GRID_POINT
from fmnist_cv.search.records import COUNTED_FROM


def draw_number(trial: FrozenTrial, trials: Sequence[FrozenTrial], counted_from: int) -> int:
    """How many configurations were drawn before this trial's; a re-queued trial has the draw of its first attempt.

    Args:
        trial: the trial.
        trials: all trials of its study.
        counted_from: the study's COUNTED_FROM; trials before this one are numbered as they are in the study.
    """
    first = next(iter(RetryHeartbeatStaleTrialCallback.retry_history(trial)), trial.number)
    if first < counted_from:
        return first
    drawn = (t for t in trials if not RetryHeartbeatStaleTrialCallback.retry_history(t))
    return counted_from + sum(counted_from <= t.number < first for t in drawn)


class SeededByDraw(BaseSampler):
    """Uses a new sampler for each trial, so that neither another worker nor a restart repeats random numbers.

    Seeds and grid points follow the count of configurations, not the trials' numbers, which interruptions use up: an
    interrupted study draws the same as an uninterrupted one, as far as the sampler does not look at other trials.

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
            taken = {t.system_attrs.get(GRID_POINT) for t in trials}
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
        if not isinstance(self._inner, GridSampler):  # which would stop `Study.optimize`, which is not running
            self._inner.after_trial(study, trial, state, values)
