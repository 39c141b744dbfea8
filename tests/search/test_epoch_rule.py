"""The epoch rule compares accuracies of one kind with each other, and scores a pruned trial with held-out accuracies."""

from __future__ import annotations

import pytest

from fmnist_cv.search.epoch_rule import score_if_pruned
from fmnist_cv.search.records import CompletedTrial
from fmnist_cv.search.settings import EpochRuleSection

RULE = EpochRuleSection(min_epochs=1, quantile=0.5, min_trials=2)
HELD_OUT, INNER = False, True


def evaluated(score: float, *curves: list[float]) -> CompletedTrial:
    """A fully evaluated trial, and the accuracies after each epoch of each fold."""
    folds = [curve[-1] for curve in curves]
    return CompletedTrial(number=0, run="", params={}, value=score, fold_scores=folds, curves=list(curves))


BEST_FIRST = [evaluated(0.80, [0.60, 0.70], [0.62, 0.72]), evaluated(0.78, [0.58, 0.68], [0.60, 0.70])]
EASY_INNER = [evaluated(0.80, [0.90, 0.95], [0.92, 0.97]), evaluated(0.78, [0.88, 0.93], [0.90, 0.95])]


@pytest.mark.parametrize(
    ("trials", "scores", "epoch", "accuracy", "kind", "expected"),
    [
        (BEST_FIRST, [], 0, 0.50, HELD_OUT, 0.50),
        (BEST_FIRST, [0.70], 0, 0.50, HELD_OUT, 0.60),  # all are held-out accuracies
        (BEST_FIRST, [], 0, 0.59, HELD_OUT, None),  # not below the median
        (BEST_FIRST, [], 2, 0.10, HELD_OUT, None),  # no other has trained so long
        (BEST_FIRST, [0.90], 0, 0.75, HELD_OUT, None),
        (BEST_FIRST[:1], [], 0, 0.10, HELD_OUT, None),  # fewer than min_trials
        (EASY_INNER, [0.70], 0, 0.85, INNER, 0.70),  # finished folds alone, not the mean with the inner part's 0.85
        (EASY_INNER, [0.79], 1, 0.94, INNER, 0.79),  # the mean with 0.94 would look better than the best
        (EASY_INNER, [], 0, 0.85, INNER, 0.75),  # 0.05 below the best in the inner part: 0.05 below its score
        (EASY_INNER, [], 0, 0.91, INNER, None),
        (EASY_INNER, [], 0, 0.05, INNER, 0.0),
        (EASY_INNER, [0.81], 0, 0.10, INNER, None),  # would look best, so it continues
    ],
)
def test_accuracies_of_one_kind_are_compared(
    trials: list[CompletedTrial], scores: list[float], epoch: int, accuracy: float, kind: bool, expected: float | None
) -> None:
    found = score_if_pruned(RULE, trials, scores, epoch, accuracy, kind)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_first_epochs_are_not_judged() -> None:
    rule = EpochRuleSection(min_epochs=2, quantile=0.5, min_trials=2)
    assert score_if_pruned(rule, BEST_FIRST, [], 0, 0.1, HELD_OUT) is None
    assert score_if_pruned(rule, BEST_FIRST, [], 1, 0.1, HELD_OUT) == pytest.approx(0.1)
