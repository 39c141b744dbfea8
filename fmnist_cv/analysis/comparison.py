"""Two models' scores on the same folds, compared: which is better, how sure is that, and does it matter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from fmnist_cv.analysis.statistics import (
    McNemarResult,
    TestResult,
    corrected_standard_error,
    corrected_t_test,
    holm,
    mcnemar,
)

ROPE = 0.005  # half a point of accuracy
LEVEL = 0.05
SURE = 0.95


@dataclass(frozen=True)
class Scores:
    """What of a run is compared, at its headline's epoch.

    Attributes:
        name: what the run is called beside the others.
        accuracies: float64 (n_folds,), of each fold on the images it holds out.
        test_over_train: images in a validation fold over images in its training part.
        out_of_fold: bool (m,), whether each image that the first repeat holds out is predicted right.
        test: bool (n_test,), whether the folds' soft vote has each test image right; None where that is not known.
        n_repeats: how often the folds were drawn.
    """

    name: str
    accuracies: np.ndarray
    test_over_train: float
    out_of_fold: np.ndarray
    test: np.ndarray | None
    n_repeats: int = 1


@dataclass(frozen=True)
class Chances:
    """Posterior probabilities of the Bayesian correlated t-test.

    Attributes:
        a_better, b_better: the mean difference is larger than the region of practical equivalence.
        equal: it lies within.
    """

    a_better: float
    equal: float
    b_better: float


@dataclass(frozen=True)
class Comparison:
    """Two runs; all differences are a minus b, as shares of the images.

    Attributes:
        a, b: the runs' names.
        rope: half the width of the region of practical equivalence.
        difference: of the folds' mean accuracies.
        t_test: corrected resampled t-test; None for a hold-out's one score, for two folds, and where all folds differ by
            the same.
        chances: None where t_test is.
        effect_size: mean over standard deviation of the folds' differences (Cohen's d_z). Folds are no sample of
            independent subjects, and larger folds make it larger: compare it only among runs with the same folds. None
            where t_test is.
        out_of_fold: McNemar's test on the held-out images, each predicted by the fold that did not train on it. The k
            models of a run stand for one, whose training set they share by k - 2 in k - 1 parts. With repeats, on the
            first alone: the same images again would be no new ones.
        test: McNemar's test of the folds' soft votes on the test set; None where it is not known.
        p: of the test that decides, t_test or else out_of_fold; adjusted by Holm for n_pairs.
        n_pairs: how many pairs were compared.
    """

    a: str
    b: str
    rope: float
    difference: float
    t_test: TestResult | None
    chances: Chances | None
    effect_size: float | None
    out_of_fold: McNemarResult
    test: McNemarResult | None
    p: float
    n_pairs: int = 1

    @property
    def sentence(self) -> str:
        """The finding in plain words, the better run first."""
        return _sentence(self)


def compare_scores(a: Scores, b: Scores, rope: float = ROPE) -> Comparison:
    """Compare what two runs have on the same folds and images.

    The Bayesian correlated t-test (Benavoli, Corani, Demšar and Zaffalon, "Time for a change", JMLR 18, 2017, section
    4.1) has a Student posterior with the mean of the differences and the corrected standard error of Nadeau and Bengio,
    here with the folds' real sizes: baycomp's CorrelatedTTest derives them from the number of folds, which is the same
    for k folds, and has no answer for repeated hold-outs.

    Args:
        a, b: the runs' scores.
        rope: differences up to this share of the images do not matter.
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
        Chances(a_better=above, equal=1 - below - above, b_better=below),
        mean / float(differences.std(ddof=1)),
        out_of_fold,
        test,
        t_test.p,
    )


def adjusted(pairs: list[Comparison]) -> list[Comparison]:
    """The same with p-values adjusted by Holm: those that decide, and McNemar's among themselves."""
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


def _sentence(pair: Comparison) -> str:
    """The finding in plain words, the better run first."""
    mcnemars, t_test = pair.out_of_fold, pair.t_test
    swap = pair.difference < 0
    better, worse = (pair.b, pair.a) if swap else (pair.a, pair.b)
    if t_test is None and mcnemars.g is None:
        return f"{better} and {worse} are right and wrong on the same {mcnemars.n:,} held-out images: no difference."
    low, high = (t_test.low, t_test.high) if t_test else (mcnemars.low, mcnemars.high)
    if swap:
        low, high = -high, -low
    kind = "corrected 95 % interval" if t_test else "95 % interval"
    p = p_value(pair.p)
    p = f"p {p if p.startswith('<') else f'= {p}'}"
    figures = f"{_points(abs(pair.difference))} points ({kind} {_points(low)} to {_points(high)}), {p}" + (
        "" if t_test else " by McNemar's test"
    )
    rope = f"{100 * pair.rope:g} points"
    chances = pair.chances
    if pair.p < LEVEL:
        told = f"{better} is better than {worse}: {figures}"
        if chances is not None:
            chance = chances.b_better if swap else chances.a_better
            told += f"; the chance that it is better by more than {rope} is {chance_in_words(chance)}"
    elif chances is not None and chances.equal >= SURE:
        told = (
            f"{better} and {worse} are practically equal: {figures}; the chance that they differ by no more than {rope} "
            f"is {chance_in_words(chances.equal)}"
        )
    else:
        told = f"No difference shown between {better} and {worse}: {figures}; {better} may be up to {100 * high:.2f} points better"
        told += f" or {-100 * low:.2f} worse" if low < 0 else ""
    return told + "."


def verdict(scores: list[Scores], pairs: list[Comparison]) -> str:
    """Of several runs: the best, and which are not shown to be worse."""
    best = max(scores, key=lambda run: run.accuracies.mean()).name
    unclear = [
        f"{pair.b if pair.a == best else pair.a} (p = {pair.p:.2g})"
        for pair in pairs
        if best in (pair.a, pair.b) and pair.p >= LEVEL
    ]
    if not unclear:
        return f"Of {len(scores)} runs, {best} is better than each of the others."
    return f"Of {len(scores)} runs, {best} has the highest accuracy, but is not shown to be better than {', '.join(unclear)}."


def p_value(p: float) -> str:
    """Two digits, or "< 0.0001"."""
    return f"{p:.2g}" if p >= 1e-4 else "< 0.0001"


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"


def chance_in_words(share: float) -> str:
    """In whole percent, never certain."""
    return "over 99 %" if share > 0.99 else "under 1 %" if share < 0.01 else f"{100 * share:.0f} %"
