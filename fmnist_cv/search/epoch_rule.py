"""Which folds are cut off in training: those far below what finished trials had in the same fold after the same epoch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import numpy as np
from optuna.trial import FrozenTrial

from fmnist_cv.search.outcomes import CURVES, WORST
from fmnist_cv.search.settings import EpochRuleSection


def score_if_hopeless(
    rule: EpochRuleSection,
    best_first: Sequence[FrozenTrial],
    scores: Sequence[float],
    epoch: int,
    accuracy: float,
    is_inner: bool,
) -> float | None:
    """The score of a trial whose fold is below the rule's quantile after an epoch; None for any other.

    The accuracy is compared with those of finished trials in the same fold after the same epoch. On an inner hold-out
    it is no held-out score: then finished folds alone make the trial's score; without one, it is as far below the best
    trial's score as the accuracy is below that trial's.

    Args:
        rule: the search's.
        best_first: the trials that ran all their folds, ranked.
        scores: the finished folds' held-out accuracies.
        epoch: of the fold that runs, counted from 0.
        accuracy: after this epoch.
        is_inner: whether it is of an inner hold-out, by cv.inner_holdout.
    """
    if epoch + 1 < rule.min_epochs:
        return None
    curves = [(float(trial.value or 0), trial.user_attrs[CURVES][len(scores)]) for trial in best_first]
    others = [(score, curve[epoch]) for score, curve in curves if len(curve) > epoch]
    if len(others) < rule.min_trials or accuracy >= float(np.quantile([there for _, there in others], rule.quantile)):
        return None
    if not is_inner:
        score = mean([*scores, accuracy])
    elif scores:
        score = mean(scores)
    else:
        score = max(WORST, others[0][0] - (others[0][1] - accuracy))
    return score if score < curves[0][0] else None  # what is given up must not look the best
