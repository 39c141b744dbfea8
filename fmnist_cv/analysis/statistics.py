"""Confidence intervals and significance tests for cross-validation scores, which are correlated across folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TypedDict

import numpy as np
from scipy import stats

NO_SPREAD = 1e-9  # a standard deviation below it, less than one image in a billion, is rounding
# of the largest to the smallest ratio of sizes, from which one alone would make a 5-fold interval an eighth wider
UNEQUAL = 1.5


class ScoreSummary(TypedDict):
    """Mean of the folds' n scores, their standard deviation (ddof 1; None for one score), and the interval of the mean.

    `low` and `high` are the corrected 95 % confidence interval, within the metric's range; None where `why_no_interval`
    gives a reason.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    n: int


class FoldSizes(TypedDict):
    """Images in a fold's training part, without an inner hold-out, and images that it holds out."""

    n_train: int
    n_validation: int


def mean_ratio(folds: Sequence[FoldSizes]) -> float:
    """Images in a validation fold over images in its training part, the mean over the folds: `test_over_train` of a run."""
    return float(np.mean([fold["n_validation"] / fold["n_train"] for fold in folds]))


def unequal_folds(folds: Sequence[FoldSizes]) -> str | None:
    """A caveat where the largest of the folds' ratios is more than `UNEQUAL` times the smallest; else None.

    The correction assumes one ratio n_test / n_train. Their mean is taken, which for folds of unequal sizes and for a growing
    training part is larger than the ratio of the mean sizes, and so gives the wider interval.
    """
    ratios = [fold["n_validation"] / fold["n_train"] for fold in folds]
    if max(ratios) <= UNEQUAL * min(ratios):
        return None
    return (
        f"Caveat: the folds hold out from {min(ratios):.2f} to {max(ratios):.2f} images per image that they train on. The "
        f"correction of intervals assumes one ratio; it is made with the mean, {mean_ratio(folds):.2f}, and is approximate."
    )


def corrected_standard_error(scores: Sequence[float], test_over_train: float) -> float:
    """Standard error of the mean of resampled scores.

    The folds' training sets overlap, so that their scores are correlated and s^2 / n is far too small. Nadeau and
    Bengio ("Inference for the generalization error", Machine Learning 52, 2003, section 3) replace 1/n by
    1/n + n_test / n_train.

    Args:
        scores: one score per fold and repeat.
        test_over_train: images in a validation fold over images in its training part.
    """
    return sqrt((1 / len(scores) + test_over_train) * float(np.var(scores, ddof=1)))


def summarise(
    scores: Sequence[float], test_over_train: float, level: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)
) -> ScoreSummary:
    """Mean, standard deviation and corrected confidence interval of the folds' validation scores.

    Args:
        scores: one score per fold and repeat.
        test_over_train: images in a validation fold over images in its training part.
        level: of confidence.
        bounds: the metric's range, see `within_bounds`.
    """
    mean, n = float(np.mean(scores)), len(scores)
    if n < 2:
        return {"mean": mean, "sd": None, "low": None, "high": None, "n": n}
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * corrected_standard_error(scores, test_over_train)
    sd = float(np.std(scores, ddof=1))
    return within_bounds({"mean": mean, "sd": sd, "low": mean - half, "high": mean + half, "n": n}, bounds)


def why_no_interval(n: int, sd: float | None) -> str | None:
    """The reason why n scores with this standard deviation have no interval; None where they have one.

    With two scores, Student's quantile with one degree of freedom is 12.7 and s is almost arbitrary: such an interval
    depends on the choice of the two folds more than on the model. For equal scores it would have zero width, as if the
    mean were known exactly.
    """
    if n == 1:
        return "one score gives no estimate of the spread"
    if n == 2:
        return "two scores give no reliable estimate of the spread"
    if sd is not None and sd < NO_SPREAD:
        return "equal scores give no estimate of the spread"
    return None


def within_bounds(summary: ScoreSummary, bounds: tuple[float, float] = (0.0, 1.0)) -> ScoreSummary:
    """A summary whose interval is truncated to the metric's range, or None where `why_no_interval` gives a reason.

    The true mean lies in the range, so the truncated interval covers it exactly as often as the full one
    (Mandelkern, "Setting confidence intervals for bounded parameters", Statistical Science 17, 2002, section 3).
    """
    low, high = summary["low"], summary["high"]
    if low is None or high is None or why_no_interval(summary["n"], summary["sd"]):
        return {**summary, "low": None, "high": None}
    return {**summary, "low": max(low, bounds[0]), "high": min(high, bounds[1])}


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's confidence interval of a proportion of n independent trials: for one model's score on one test set."""
    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class TTestResult:
    """Result of a corrected resampled t-test of the difference of two models' scores; low and high bound the difference."""

    difference: float
    low: float
    high: float
    p: float


class DifferenceTest(TypedDict):
    """Result of `corrected_t_test` in a results file; all but the difference are None where there is no test."""

    difference: float
    low: float | None
    high: float | None
    p: float | None


def corrected_t_test(
    a: Sequence[float], b: Sequence[float], test_over_train: float, level: float = 0.95
) -> TTestResult | None:
    """Corrected resampled t-test of mean(a - b) = 0, paired by shared split (Nadeau and Bengio 2003, section 3).

    Args:
        a, b: scores in [0, 1] of two models on the same splits, in the same order.
        test_over_train: images in a validation fold over images in its training part.
        level: of confidence.

    Returns:
        The interval lies in [-1, 1]; None where `why_no_interval` gives a reason for the differences.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean, n = float(np.mean(differences)), len(differences)
    if n < 2 or why_no_interval(n, float(np.std(differences, ddof=1))):
        return None
    error = corrected_standard_error(differences, test_over_train)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    return TTestResult(
        mean, max(mean - half, -1.0), min(mean + half, 1.0), 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    )


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple testing so that the family-wise error rate stays below the level.

    Holm's step-down procedure ("A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6,
    1979), in the order given.
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted


@dataclass(frozen=True)
class McNemarResult:
    """Result of McNemar's test of two models' predictions on the same images.

    Attributes:
        only_a, only_b: images that only one model classifies correctly.
        n: images.
        difference: accuracy of a minus that of b, -1 to 1.
        low, high: 95 % confidence interval of the difference, given the number of discordant images.
        p: exact, two-sided.
        g: Cohen's g, only_a / (only_a + only_b) - 1/2; 0.05 is called small, 0.15 medium, 0.25 large (Cohen 1988, chapter
            5). None without discordant images.
    """

    only_a: int
    only_b: int
    n: int
    difference: float
    low: float
    high: float
    p: float
    g: float | None


def mcnemar(right_a: np.ndarray, right_b: np.ndarray, level: float = 0.95) -> McNemarResult:
    """McNemar's exact test that two models classify equally many of the discordant images correctly.

    The binomial test and its Clopper-Pearson interval, so that p < 0.05 exactly where the 95 % interval excludes 0. It
    compares these trained models, not the procedures that trained them (Dietterich, "Approximate statistical
    tests for comparing supervised classification learning algorithms", Neural Computation 10, 1998, section 3.1).

    Args:
        right_a, right_b: bool (n,), whether each model is correct.
        level: of confidence.
    """
    only_a, only_b, n = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum()), len(right_a)
    either = only_a + only_b
    if not either:
        return McNemarResult(0, 0, n, 0.0, 0.0, 0.0, 1.0, None)
    test = stats.binomtest(only_a, either)
    share = test.proportion_ci(level, method="exact")
    low, high = (float(2 * bound - 1) * either / n for bound in (share.low, share.high))
    return McNemarResult(only_a, only_b, n, (only_a - only_b) / n, low, high, float(test.pvalue), only_a / either - 0.5)
