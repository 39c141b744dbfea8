"""Which trials are pruned within a fold: those far below others in the same fold after the same epoch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import numpy as np

from fmnist_cv.search.records import DIVERGED_SCORE, CompletedTrial
from fmnist_cv.search.settings import EpochRuleSection


def score_if_pruned(
    rule: EpochRuleSection,
    best_first: Sequence[CompletedTrial],
    scores: Sequence[float],
    epoch: int,
    accuracy: float,
    is_inner: bool,
) -> float | None:
    """The score of a trial whose fold is below the rule's quantile after an epoch; None if it is not pruned.

    The accuracy is compared with those of fully evaluated trials in the same fold after the same epoch. If it is measured on
    an inner hold-out, it does not estimate the held-out score: then the completed folds alone make the trial's score; without
    one, it is as far below the best trial's score as the accuracy is below that trial's.

    Args:
        rule: the search's.
        best_first: the fully evaluated trials, ranked.
        scores: the completed folds' held-out accuracies, from 0 to 1.
        epoch: of the running fold, counted from 0.
        accuracy: after this epoch, from 0 to 1.
        is_inner: whether it is measured on an inner hold-out (cv.inner_holdout).
    """
    if epoch + 1 < rule.min_epochs:
        return None
    fold = len(scores)
    others = [(trial.value, trial.curves[fold][epoch]) for trial in best_first if len(trial.curves[fold]) > epoch]
    if len(others) < rule.min_trials or accuracy >= float(np.quantile([there for _, there in others], rule.quantile)):
        return None
    if not is_inner:
        score = mean([*scores, accuracy])
    elif scores:
        score = mean(scores)
    else:
        best_score, best_accuracy = others[0]
        score = max(DIVERGED_SCORE, best_score - (best_accuracy - accuracy))
    return score if score < best_first[0].value else None  # a pruned trial must not look best
