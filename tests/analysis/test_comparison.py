"""Scores compared: figures against numbers worked out by hand, invariants, and words."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from math import sqrt
from typing import Any

import numpy as np
import pytest
from baycomp import CorrelatedTTest
from hypothesis import given, strategies as st

from fmnist_cv.analysis.comparison import Comparison, RunScores, adjusted, compare_scores, verdict

RIGHT = np.ones(10, dtype=bool)


def scores(
    name: str, *accuracies: float, ratio: float = 0.5, wrong: int = 0, test: np.ndarray | None = None
) -> RunScores:
    """A run that has the first `wrong` of ten held-out images wrong."""
    out_of_fold = RIGHT.copy()
    out_of_fold[:wrong] = False
    return RunScores(name, np.array(accuracies), ratio, out_of_fold, test)


def is_plain(value: Any) -> bool:
    """Whether no number in it is NaN or infinite, and JSON holds it as it is."""
    return json.loads(json.dumps(value, allow_nan=False)) == value


# -- figures ------------------------------------------------------------------------------------------------


def test_figures_by_hand() -> None:
    """Differences 1, 2, 3 points in 3 folds: s = 1 point, t = 2 / sqrt(1/3 + 1/2) = 2.19089 with 2 degrees of freedom."""
    pair = compare_scores(scores("a", 0.91, 0.93, 0.95), scores("b", 0.90, 0.91, 0.92, wrong=3), rope=0.01)
    assert pair.difference == pytest.approx(0.02)
    assert pair.effect_size == pytest.approx(2)
    assert pair.t_test is not None and pair.chances is not None
    t = 0.02 / (0.01 * sqrt(1 / 3 + 1 / 2))
    assert pair.t_test.p == pair.p == pytest.approx(1 - t / sqrt(2 + t**2))

    def above(x: float) -> float:
        """Student's t with 2 degrees of freedom, in closed form, moved to the mean and stretched by the error."""
        u = (x - 0.02) / (0.01 * sqrt(1 / 3 + 1 / 2))
        return 0.5 - u / (2 * sqrt(2 + u**2))

    chances = pair.chances
    assert (chances.a_better, chances.b_better) == pytest.approx((above(0.01), 1 - above(-0.01)))
    assert chances.a_better + chances.equal + chances.b_better == pytest.approx(1)
    assert (pair.out_of_fold.only_a, pair.out_of_fold.only_b, pair.out_of_fold.p) == (3, 0, 0.25)
    assert pair.test is None


@pytest.mark.parametrize(("k", "repeats"), [(3, 1), (5, 1), (10, 1), (5, 2), (3, 4)])
def test_the_chances_are_baycomps_where_all_folds_are_equal(k: int, repeats: int) -> None:
    """Its correlation comes from the number of folds: n_test / n_train = 1 / (k - 1)."""
    random = np.random.default_rng(k)
    a, b = random.normal(0.9, 0.01, (2, k * repeats))
    found = compare_scores(scores("a", *a, ratio=1 / (k - 1)), scores("b", *b, ratio=1 / (k - 1))).chances
    left, rope, right = CorrelatedTTest(b, a, rope=0.005, runs=repeats).probs()
    assert found is not None
    assert (found.b_better, found.equal, found.a_better) == pytest.approx((left, rope, right))


shares = st.floats(0.5, 1, allow_subnormal=False)


@given(
    pairs=st.lists(st.tuples(shares, shares), min_size=1, max_size=10),
    answers=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40),
    ratio=st.floats(0.05, 1),
    rope=st.floats(0.001, 0.1),
)
def test_swapping_the_runs_turns_the_signs_and_keeps_p(
    pairs: list[tuple[float, float]], answers: list[tuple[bool, bool]], ratio: float, rope: float
) -> None:
    a, b = (
        RunScores(name, np.array(accuracies), ratio, np.array(right), np.array(right))
        for name, accuracies, right in zip("ab", zip(*pairs, strict=True), zip(*answers, strict=True), strict=True)
    )
    forth, back = compare_scores(a, b, rope), compare_scores(b, a, rope)
    assert is_plain(asdict(forth))
    assert back.difference == pytest.approx(-forth.difference)
    assert back.p == pytest.approx(forth.p) and 0 <= forth.p <= 1
    for mine, other in ((forth.out_of_fold, back.out_of_fold), (forth.test, back.test)):
        assert mine is not None and other is not None
        assert other.p == pytest.approx(mine.p)
        assert other.difference == pytest.approx(-mine.difference)
    assert (forth.t_test is None) == (back.t_test is None) == (back.chances is None)
    if forth.t_test is not None and back.t_test is not None and forth.chances is not None and back.chances is not None:
        assert back.effect_size == pytest.approx(-(forth.effect_size or math.nan))
        assert back.t_test.p == pytest.approx(forth.t_test.p)
        assert back.chances.a_better == pytest.approx(forth.chances.b_better)
        assert back.chances.equal == pytest.approx(forth.chances.equal, abs=1e-9)
    if forth.difference:
        assert back.sentence == forth.sentence


def test_p_values_of_several_pairs_are_adjusted_each_kind_by_itself() -> None:
    test = [RIGHT.copy() for _ in range(3)]
    test[2][:6] = False
    runs = [
        scores("a", 0.91, 0.93, 0.95, test=test[0]),
        scores("b", 0.90, 0.91, 0.92, wrong=7, test=test[1]),
        scores("c", 0.90, 0.92, 0.93, test=test[2]),
    ]
    raw = [compare_scores(runs[i], runs[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    found = adjusted(raw)
    assert [pair.n_pairs for pair in found] == [3, 3, 3]
    assert [pair.out_of_fold.p for pair in found] == pytest.approx([3 / 64, 1, 3 / 64])  # raw 2 / 2^7, 1, 2 / 2^7
    assert [pair.test.p for pair in found if pair.test] == pytest.approx([1, 3 / 32, 3 / 32])  # raw 1, 2 / 2^6, 2 / 2^6
    order = sorted(range(3), key=lambda i: raw[i].p)
    assert found[order[0]].p == pytest.approx(3 * raw[order[0]].p)
    assert all(pair.t_test and pair.t_test.p == pair.p for pair in found)
    assert [pair.difference for pair in found] == [pair.difference for pair in raw]


# -- words --------------------------------------------------------------------------------------------------


def test_a_difference_that_is_shown_and_matters() -> None:
    pair = compare_scores(scores("b", 0.900, 0.901, 0.902), scores("a", 0.950, 0.952, 0.954))
    assert pair.sentence.startswith(
        "a is significantly better than b: +5.10 points (corrected 95 % confidence interval +4."
    )
    assert "p = 0.000" in pair.sentence
    assert pair.sentence.endswith("; the posterior probability that it is better by more than 0.5 points is over 99 %.")


def test_a_difference_that_is_shown_and_does_not_matter() -> None:
    pair = compare_scores(scores("a", 0.9010, 0.9011, 0.9012), scores("b", 0.9, 0.9, 0.9))
    assert pair.p < 0.05
    assert pair.sentence.startswith("a is significantly better than b: +0.11 points")
    assert pair.sentence.endswith("by more than 0.5 points is under 1 %.")


def test_runs_that_are_practically_equal() -> None:
    pair = compare_scores(scores("a", 0.9001, 0.8999, 0.9), scores("b", 0.9, 0.9001, 0.9))
    assert pair.sentence.startswith("b and a are practically equivalent: +0.00 points")
    assert pair.sentence.endswith("the posterior probability that they differ by at most 0.5 points is over 99 %.")


def test_a_difference_that_is_not_shown_says_what_cannot_be_excluded() -> None:
    pair = compare_scores(scores("a", 0.91, 0.89, 0.92), scores("b", 0.90, 0.90, 0.90))
    assert pair.t_test is not None
    assert pair.sentence == (
        f"No significant difference between a and b: +0.67 points (corrected 95 % confidence interval {100 * pair.t_test.low:+.2f} to "
        f"{100 * pair.t_test.high:+.2f}), p = {pair.p:.2g}; a may be up to {100 * pair.t_test.high:.2f} points better or "
        f"{-100 * pair.t_test.low:.2f} worse."
    )


def test_one_score_each_is_judged_by_mcnemar() -> None:
    pair = compare_scores(scores("a", 1.0), scores("b", 0.2, wrong=8))
    assert (pair.t_test, pair.chances, pair.effect_size) == (None, None, None)
    assert pair.p == pair.out_of_fold.p == pytest.approx(2 / 2**8)
    assert pair.sentence.startswith("a is significantly better than b: +80.00 points (95 % confidence interval ")
    assert pair.sentence.endswith("p = 0.0078 by McNemar's test.")


def test_folds_that_all_differ_by_the_same_are_judged_by_mcnemar() -> None:
    pair = compare_scores(scores("a", 0.9, 0.8, 0.7), scores("b", 0.8, 0.7, 0.6, wrong=1))
    assert pair.t_test is None and pair.p == 1.0
    assert pair.sentence.startswith("No significant difference between a and b: +10.00 points")


def test_two_folds_are_judged_by_mcnemar() -> None:
    """Student's t with one degree of freedom would say from -62 to +64 points."""
    pair = compare_scores(scores("a", 0.91, 0.80), scores("b", 0.80, 0.79, wrong=8))
    assert (pair.t_test, pair.chances, pair.effect_size) == (None, None, None)
    assert pair.p == pair.out_of_fold.p == pytest.approx(2 / 2**8)
    assert pair.sentence.endswith("p = 0.0078 by McNemar's test.")


def test_of_several_runs_the_best_is_named_with_those_it_is_not_shown_to_beat() -> None:
    runs = [scores("a", 0.80, 0.81, 0.82), scores("b", 0.95, 0.952, 0.954), scores("c", 0.951, 0.951, 0.951)]
    pairs = adjusted([compare_scores(runs[i], runs[j]) for i, j in ((0, 1), (0, 2), (1, 2))])
    assert verdict(runs, pairs).startswith(
        "Of 3 runs, b has the highest accuracy, but is not significantly better than c (p = "
    )
    assert verdict(runs[:2], pairs[:1]) == "Of 2 runs, b is significantly better than each of the others."


def test_a_comparison_holds_plain_values() -> None:
    pair = compare_scores(scores("a", 0.9, 0.91, 0.93), scores("b", 0.9, 0.9, 0.9, wrong=1))
    assert isinstance(pair, Comparison) and is_plain(asdict(pair))
