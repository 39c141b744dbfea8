"""Folds are cut off by comparing like with like, and what their trials are worth is of the scores' own kind."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import FrozenTrial

from fmnist_cv.search.epoch_rule import score_if_hopeless
from fmnist_cv.search.outcomes import CURVES
from fmnist_cv.search.settings import EpochRuleSection

RULE = EpochRuleSection(min_epochs=1, quantile=0.5, min_trials=2)
HELD_OUT, INNER = False, True


def whole(score: float, *curves: list[float]) -> FrozenTrial:
    """A trial with all folds, and the accuracies after each epoch of each."""
    return optuna.create_trial(value=score, user_attrs={CURVES: curves})


BEST_FIRST = [whole(0.80, [0.60, 0.70], [0.62, 0.72]), whole(0.78, [0.58, 0.68], [0.60, 0.70])]
FLATTERED = [whole(0.80, [0.90, 0.95], [0.92, 0.97]), whole(0.78, [0.88, 0.93], [0.90, 0.95])]  # an easy inner part


@pytest.mark.parametrize(
    ("trials", "scores", "epoch", "accuracy", "kind", "expected"),
    [
        (BEST_FIRST, [], 0, 0.50, HELD_OUT, 0.50),
        (BEST_FIRST, [0.70], 0, 0.50, HELD_OUT, 0.60),  # all are held-out accuracies
        (BEST_FIRST, [], 0, 0.59, HELD_OUT, None),  # not below the median
        (BEST_FIRST, [], 2, 0.10, HELD_OUT, None),  # no other has trained so long
        (BEST_FIRST, [0.90], 0, 0.75, HELD_OUT, None),
        (BEST_FIRST[:1], [], 0, 0.10, HELD_OUT, None),  # fewer than min_trials
        (FLATTERED, [0.70], 0, 0.85, INNER, 0.70),  # finished folds alone, not the mean with the inner part's 0.85
        (FLATTERED, [0.79], 1, 0.94, INNER, 0.79),  # the mean with 0.94 would look better than the best
        (FLATTERED, [], 0, 0.85, INNER, 0.75),  # 0.05 below the best in the inner part: 0.05 below its score
        (FLATTERED, [], 0, 0.91, INNER, None),
        (FLATTERED, [], 0, 0.05, INNER, 0.0),
        (FLATTERED, [0.81], 0, 0.10, INNER, None),  # would look the best, so it goes on
    ],
)
def test_like_is_compared_with_like(
    trials: list[FrozenTrial], scores: list[float], epoch: int, accuracy: float, kind: bool, expected: float | None
) -> None:
    found = score_if_hopeless(RULE, trials, scores, epoch, accuracy, kind)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_first_epochs_are_not_judged() -> None:
    rule = EpochRuleSection(min_epochs=2, quantile=0.5, min_trials=2)
    assert score_if_hopeless(rule, BEST_FIRST, [], 0, 0.1, HELD_OUT) is None
    assert score_if_hopeless(rule, BEST_FIRST, [], 1, 0.1, HELD_OUT) == pytest.approx(0.1)
