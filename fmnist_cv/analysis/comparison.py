"""Two runs compared on the same folds: significance tests, effect sizes, and the result in words."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from fmnist_cv.analysis.statistics import (
    McNemarResult,
    TTestResult,
    corrected_standard_error,
    corrected_t_test,
    holm,
    mcnemar,
)

ROPE = 0.005  # half a point of accuracy
LEVEL = 0.05  # of significance
SURE = 0.95  # posterior probability from which runs are called practically equivalent
SMALLEST_P = 1e-4  # smaller p-values are shown as a bound


@dataclass(frozen=True)
class RunScores:
    """The scores of a run that are compared, at its headline epoch.

    Attributes:
        name: the run's name in the comparison.
        accuracies: float64 (n_folds,), of each fold on the images it holds out.
        test_over_train: images in a validation fold over images in its training part.
        out_of_fold: bool (m,), whether each image that the first repeat holds out is classified correctly.
        test: bool (n_test,), whether the soft-voting ensemble classifies each test image correctly; None if unknown.
        n_repeats: number of repeats of the cross-validation.
    """

    name: str
    accuracies: np.ndarray
    test_over_train: float
    out_of_fold: np.ndarray
    test: np.ndarray | None
    n_repeats: int = 1


@dataclass(frozen=True)
class PosteriorProbabilities:
    """Posterior probabilities of the Bayesian correlated t-test.

    Attributes:
        a_better, b_better: the mean difference exceeds the region of practical equivalence in favour of a or b.
        equal: the mean difference lies within the region.
    """

    a_better: float
    equal: float
    b_better: float


@dataclass(frozen=True)
class Comparison:
    """Two runs compared; all differences are a minus b, as shares of the images.

    Attributes:
        a, b: the runs' names.
        rope: half the width of the region of practical equivalence.
        difference: of the folds' mean accuracies.
        t_test: corrected resampled t-test; None for the single score of a hold-out, for two folds, and where all folds
            differ by the same amount.
        chances: posterior probabilities; None where t_test is None.
        effect_size: mean over standard deviation of the folds' differences (Cohen's d_z). Folds are not independent
            subjects, and larger folds increase it: compare it only among runs with the same folds. None where t_test is
            None.
        out_of_fold: McNemar's test on the held-out images, each predicted by the model that was not trained on it. The k
            models of a run are treated as one; any two share (k - 2) / (k - 1) of their training sets. Only the first
            repeat is used, since the others hold out the same images again.
        test: McNemar's test of the soft-voting ensembles on the test set; None if unknown.
        p: p-value of the deciding test, t_test or else out_of_fold; adjusted by Holm's method for n_pairs.
        n_pairs: number of pairs compared.
    """

    a: str
    b: str
    rope: float
    difference: float
    t_test: TTestResult | None
    chances: PosteriorProbabilities | None
    effect_size: float | None
    out_of_fold: McNemarResult
    test: McNemarResult | None
    p: float
    n_pairs: int = 1

    @property
    def sentence(self) -> str:
        """The result in words, the better run first."""
        on_images, t_test, posterior = self.out_of_fold, self.t_test, self.chances
        swap = self.difference < 0
        better, worse = (self.b, self.a) if swap else (self.a, self.b)
        if t_test is None and on_images.g is None:
            return f"{better} and {worse} are correct on the same {on_images.n:,} held-out images: no difference."
        low, high = (t_test.low, t_test.high) if t_test else (on_images.low, on_images.high)
        if swap:
            low, high = -high, -low
        interval = f"{'corrected ' if t_test else ''}95 % confidence interval {_points(low)} to {_points(high)}"
        p = f"p {p_value(self.p)}" if self.p < SMALLEST_P else f"p = {p_value(self.p)}"
        test = "" if t_test else " by McNemar's test"
        figures = f"{_points(abs(self.difference))} points ({interval}), {p}{test}"
        rope = f"{100 * self.rope:g} points"
        if self.p < LEVEL:
            sentence = f"{better} is significantly better than {worse}: {figures}"
            if posterior is not None:
                probability = probability_in_words(posterior.b_better if swap else posterior.a_better)
                sentence += f"; the posterior probability that it is better by more than {rope} is {probability}"
            return f"{sentence}."
        if posterior is not None and posterior.equal >= SURE:
            probability = probability_in_words(posterior.equal)
            return (
                f"{better} and {worse} are practically equivalent: {figures}; the posterior probability that they differ by at "
                f"most {rope} is {probability}."
            )
        sentence = (
            f"No significant difference between {better} and {worse}: {figures}; {better} may be up to {100 * high:.2f}"
        )
        return f"{sentence} points better" + (f" or {-100 * low:.2f} worse." if low < 0 else ".")


def compare_scores(a: RunScores, b: RunScores, rope: float = ROPE) -> Comparison:
    """Compare two runs on the same folds and images.

    The Bayesian correlated t-test (Benavoli, Corani, Demšar and Zaffalon, "Time for a change", JMLR 18, 2017, section
    4.1) has a Student posterior with the mean of the differences and the corrected standard error of Nadeau and Bengio,
    here with the folds' real sizes: baycomp's CorrelatedTTest derives them from the number of folds, which is equivalent
    for k folds and undefined for repeated hold-outs.

    Args:
        a, b: the runs' scores.
        rope: half-width of the region of practical equivalence, as a difference of accuracies.
    """
    differences = a.accuracies - b.accuracies
    out_of_fold = mcnemar(a.out_of_fold, b.out_of_fold)
    test = None if a.test is None or b.test is None else mcnemar(a.test, b.test)
    mean = float(differences.mean())
    ratio = max(a.test_over_train, b.test_over_train)  # an inner hold-out leaves one of them less to train on
    t_test = corrected_t_test(a.accuracies.tolist(), b.accuracies.tolist(), ratio)
    if t_test is None:
        return Comparison(a.name, b.name, rope, mean, None, None, None, out_of_fold, test, out_of_fold.p)
    error = corrected_standard_error(differences.tolist(), ratio)
    posterior = stats.t(len(differences) - 1, loc=mean, scale=error)
    below, above = float(posterior.cdf(-rope)), float(posterior.sf(rope))
    return Comparison(
        a.name,
        b.name,
        rope,
        mean,
        t_test,
        PosteriorProbabilities(a_better=above, equal=1 - below - above, b_better=below),
        mean / float(differences.std(ddof=1)),
        out_of_fold,
        test,
        t_test.p,
    )


def adjusted(pairs: list[Comparison]) -> list[Comparison]:
    """The pairs with p-values adjusted by Holm's method, each kind of test among themselves."""
    if len(pairs) == 1:
        return pairs
    p, out_of_fold = holm([pair.p for pair in pairs]), holm([pair.out_of_fold.p for pair in pairs])
    tested = [i for i, pair in enumerate(pairs) if pair.test is not None]
    test = dict(zip(tested, holm([pair.test.p for pair in pairs if pair.test is not None]), strict=True))
    return [
        replace(
            pair,
            p=p[i],
            t_test=None if pair.t_test is None else replace(pair.t_test, p=p[i]),
            out_of_fold=replace(pair.out_of_fold, p=out_of_fold[i]),
            test=None if pair.test is None else replace(pair.test, p=test[i]),
            n_pairs=len(pairs),
        )
        for i, pair in enumerate(pairs)
    ]


# -- in words -----------------------------------------------------------------------------------------------


def verdict(scores: list[RunScores], pairs: list[Comparison]) -> str:
    """The result for three or more runs: the best one, and those that are not significantly worse."""
    best = max(scores, key=lambda run: run.accuracies.mean()).name
    unclear = [
        f"{pair.b if pair.a == best else pair.a} (p = {pair.p:.2g})"
        for pair in pairs
        if best in (pair.a, pair.b) and pair.p >= LEVEL
    ]
    if not unclear:
        return f"Of {len(scores)} runs, {best} is significantly better than each of the others."
    return f"Of {len(scores)} runs, {best} has the highest accuracy, but is not significantly better than {', '.join(unclear)}."


def p_value(p: float) -> str:
    """Two digits, or "< 0.0001"."""
    return f"{p:.2g}" if p >= SMALLEST_P else f"< {SMALLEST_P:.4f}"


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"


def probability_in_words(share: float) -> str:
    """In whole percent, never 0 or 100."""
    return "over 99 %" if share > 0.99 else "under 1 %" if share < 0.01 else f"{100 * share:.0f} %"
