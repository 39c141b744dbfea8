"""Statistics of scores, against numbers worked out by hand and published formulas."""

from __future__ import annotations

from functools import partial
from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from fmnist_cv.analysis.statistics import (
    FoldSizes,
    corrected_standard_error,
    corrected_t_test,
    holm,
    mcnemar,
    mean_ratio,
    summarise,
    summarise as summarise_within,
    unequal_folds,
    why_no_interval,
    wilson_interval,
)
from fmnist_cv.analysis.tables import interval_cell, interval_of

SCORES = [0.90, 0.92, 0.91, 0.89, 0.93]  # mean 0.91, variance 0.001 / 4 = 0.00025
shares = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=20)
ratios = st.floats(0.01, 1.0, allow_subnormal=False)


def test_summary_by_hand() -> None:
    """k = 5: s^2 (1/5 + 1/4) = 0.00025 * 0.45, and the 97.5 % quantile of t with 4 degrees of freedom is 2.7764."""
    summary = summarise(SCORES, test_over_train=0.25)
    assert summary["n"] == 5
    assert summary["mean"] == pytest.approx(0.91)
    assert summary["sd"] == pytest.approx(sqrt(0.00025))
    half = 2.776445 * sqrt(0.00025 * 0.45)
    assert (summary["low"], summary["high"]) == pytest.approx((0.91 - half, 0.91 + half), rel=1e-6)
    assert summary.keys() == {"mean", "sd", "low", "high", "n"}


def test_folds_whose_sizes_differ_markedly_have_a_caveat_and_the_mean_ratio() -> None:
    time_series = [FoldSizes(n_train=10 * i, n_validation=10) for i in (1, 2, 4)]
    assert mean_ratio(time_series) == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
    caveat = unequal_folds(time_series)
    assert (
        caveat is not None
        and "from 0.25 to 1.00 images" in caveat
        and "with the mean, 0.58, and is approximate" in caveat
    )
    assert unequal_folds([FoldSizes(n_train=100 - n, n_validation=n) for n in (20, 25)]) is None
    assert unequal_folds([FoldSizes(n_train=100 - n, n_validation=n) for n in (20, 28)]) is not None


def test_one_score_has_no_spread() -> None:
    assert summarise([0.9], 0.25) == {"mean": 0.9, "sd": None, "low": None, "high": None, "n": 1}


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ([0.61, 0.16], "two scores give no reliable estimate"),
        ([0.25, 0.25], "two scores give no reliable estimate"),
        ([0.25] * 5, "equal scores give no estimate"),
        ([0.1 + 0.2, 0.3, 0.3], "equal scores give no estimate"),  # but for rounding
        ([0.25], "one score gives no estimate"),
    ],
)
def test_scores_that_say_nothing_about_others_have_no_interval_but_a_reason(scores: list[float], reason: str) -> None:
    """Two folds of 61 and 16 % had -247.10 to 325.10, equal ones an interval without width."""
    summary = summarise(scores, 1.0)
    assert (summary["low"], summary["high"]) == (None, None)
    why = why_no_interval(summary["n"], summary["sd"])
    assert why is not None and why.startswith(reason)
    assert corrected_t_test(scores, [0.0] * len(scores), 1.0) is None
    assert interval_of(summary) == f"no interval: {why}" and interval_cell(summary) == ""


def test_an_interval_stays_within_the_metrics_range() -> None:
    """The whole one of these three folds is 48.39 to 117.15."""
    scores = [0.7402, 0.8277, 0.9152]
    summary = summarise(scores, 0.5)
    assert (summary["low"], summary["high"]) == (pytest.approx(0.4840, abs=1e-4), 1.0)
    assert interval_of(summary) == "corrected 95 % confidence interval 48.40 to 100.00"
    assert summarise([0.02, 0.3, 0.1], 0.5)["low"] == 0
    loss = summarise([9.0, 1.0, 1.0], 0.5, bounds=(0, inf))
    assert loss["low"] == 0 and loss["high"] is not None and loss["high"] > 9
    test = corrected_t_test([1.0, 0.1, 0.9], [0.0, 0.0, 0.0], 0.5)
    assert test is not None and (test.low, test.high) == (-1.0, 1.0) and test.p == pytest.approx(0.277, abs=1e-3)


@given(scores=shares, ratio=ratios)
def test_whatever_the_scores_the_interval_is_possible_and_holds_the_mean(scores: list[float], ratio: float) -> None:
    summary = summarise(scores, ratio)
    if summary["low"] is None or summary["high"] is None:
        assert why_no_interval(summary["n"], summary["sd"])
    else:
        assert 0 <= summary["low"] <= summary["mean"] + 1e-12 and summary["mean"] - 1e-12 <= summary["high"] <= 1


@given(scores=shares, ratio=ratios)
def test_the_corrected_error_is_larger_than_the_naive_one(scores: list[float], ratio: float) -> None:
    naive = float(stats.sem(scores))
    corrected = corrected_standard_error(scores, ratio)
    assert corrected == pytest.approx(naive * sqrt(1 + len(scores) * ratio), abs=1e-12)
    assert corrected >= naive


@given(scores=shares, ratio=ratios, shift=st.floats(-1, 1, allow_subnormal=False))
def test_a_summary_moves_with_its_scores(scores: list[float], ratio: float, shift: float) -> None:
    summarise = partial(summarise_within, bounds=(-inf, inf))
    here, there = summarise(scores, ratio), summarise([s + shift for s in scores], ratio)
    if here["low"] is None or here["high"] is None or there["low"] is None or there["high"] is None:
        return
    assert there["mean"] == pytest.approx(here["mean"] + shift, abs=1e-9)
    assert there["high"] - there["low"] == pytest.approx(here["high"] - here["low"], abs=1e-6)
    assert here["low"] <= here["mean"] <= here["high"]
    wider, narrower = summarise(scores, ratio, level=0.99), summarise(scores, ratio, level=0.9)
    assert wider["low"] is not None and narrower["low"] is not None
    assert wider["low"] <= here["low"] <= narrower["low"]


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (9123, 10_000), (1, 1)])
def test_wilsons_interval_by_its_formula(successes: int, n: int) -> None:
    z, p = 1.959963984540054, successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson_interval(successes, n) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_wilsons_interval_as_published() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 of 263 is 0.2553 to 0.3662; 0 of 20, 0 to 0.1611."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@given(n=st.integers(1, 5000), data=st.data())
def test_wilsons_interval_holds_the_share_and_stays_in_0_to_1(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson_interval(successes, n)
    assert -1e-12 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1 + 1e-12
    mirrored = wilson_interval(n - successes, n)
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]), abs=1e-9)


def test_t_test_by_hand() -> None:
    """Differences 1, 2, 3 percent: mean 0.02, s = 0.01, error = 0.01 sqrt(1/3 + 1/2) = 0.0091287, t = 2.19089."""
    test = corrected_t_test([0.91, 0.93, 0.95], [0.90, 0.91, 0.92], test_over_train=0.5)
    assert test is not None
    assert test.difference == pytest.approx(0.02)
    error = 0.01 * sqrt(1 / 3 + 1 / 2)
    assert (test.low, test.high) == pytest.approx((0.02 - 4.302653 * error, 0.02 + 4.302653 * error), rel=1e-6)
    t = 0.02 / error
    assert test.p == pytest.approx(1 - t / sqrt(2 + t**2))  # Student's t with 2 degrees of freedom, in closed form


def test_t_test_without_correction_is_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.9, 0.01, 10), rng.normal(0.895, 0.01, 10)
    expected = stats.ttest_rel(a, b)
    test = corrected_t_test(list(a), list(b), test_over_train=0.0)
    assert test is not None
    assert test.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (test.low, test.high) == pytest.approx((interval.low, interval.high))


@given(
    pairs=st.lists(
        st.tuples(st.floats(0, 1, allow_subnormal=False), st.floats(0, 1, allow_subnormal=False)),
        min_size=2,
        max_size=12,
    ),
    ratio=ratios,
)
def test_t_test_is_symmetric_and_agrees_with_its_interval(pairs: list[tuple[float, float]], ratio: float) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    forth, back = corrected_t_test(a, b, ratio), corrected_t_test(b, a, ratio)
    if forth is None or back is None:
        assert forth is back
        return
    assert 0 <= forth.p <= 1
    assert back.difference == pytest.approx(-forth.difference)
    assert back.p == pytest.approx(forth.p)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low))
    if abs(forth.p - 0.05) > 1e-6:
        assert (forth.p < 0.05) == (not forth.low <= 0 <= forth.high)


def test_t_test_refuses_scores_that_do_not_pair_up() -> None:
    with pytest.raises(ValueError):
        corrected_t_test([0.9, 0.8], [0.9], 0.5)


def test_holms_p_values_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04, and none below the one before it."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.2]) == [0.2]
    assert holm([0.5, 0.9]) == [1.0, 1.0]


@given(p=st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=12))
def test_holms_p_values_keep_the_order_and_lie_between_raw_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    for raw, value in zip(p, adjusted, strict=True):
        assert raw <= value <= 1 and value <= len(p) * max(p)
    assert all(adjusted[i] <= adjusted[j] for i in range(len(p)) for j in range(len(p)) if p[i] < p[j])


def answers(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether a and b are right."""
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return np.array(a), np.array(b)


def test_mcnemar_by_hand() -> None:
    """8 against 2: p = 2 (C(10,0) + C(10,1) + C(10,2)) / 2^10 = 112 / 1024; difference 6 of 100; g = 0.8 - 0.5."""
    test = mcnemar(*answers(70, 8, 2, 20))
    assert (test.only_a, test.only_b, test.n) == (8, 2, 100)
    assert test.p == pytest.approx(112 / 1024)
    assert test.difference == pytest.approx(0.06)
    assert test.g == pytest.approx(0.3)
    # Clopper and Pearson's 95 % interval of 8 in 10 is 0.4439 to 0.9748 (their chart of 1934, and any table since)
    assert (test.low, test.high) == pytest.approx(((2 * 0.44390 - 1) * 0.1, (2 * 0.97479 - 1) * 0.1), abs=1e-5)


def test_mcnemar_of_the_same_answers() -> None:
    test = mcnemar(*answers(5, 0, 0, 3))
    assert (test.difference, test.low, test.high, test.p, test.g) == (0, 0, 0, 1, None)


@given(counts=st.tuples(*[st.integers(0, 60)] * 4).filter(sum))
def test_mcnemar_is_symmetric_and_agrees_with_its_interval(counts: tuple[int, int, int, int]) -> None:
    a, b = answers(*counts)
    forth, back = mcnemar(a, b), mcnemar(b, a)
    assert forth.difference == pytest.approx(a.mean() - b.mean())
    assert back.p == pytest.approx(forth.p)
    assert (back.difference, back.low, back.high) == pytest.approx((-forth.difference, -forth.high, -forth.low))
    assert forth.low <= forth.difference + 1e-12 and forth.difference <= forth.high + 1e-12
    if counts[1] + counts[2]:
        assert (forth.p < 0.05) == (not forth.low <= 0 <= forth.high)
