"""Predictions per image and class, and the choice of those that are shown."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from fmnist_cv.reporting.predictions import PredictionTable, mean_over_repeats


@st.composite
def held_out(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of up to 3 repeats, some images not held out in some of them, and labels."""
    n, k, r = draw(st.integers(1, 40)), draw(st.integers(2, 5)), draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 2**31)))
    probabilities = random.dirichlet(np.ones(k), (r, n)).astype(np.float32)
    probabilities[random.random((r, n)) < draw(st.sampled_from([0.0, 0.4]))] = np.nan
    return probabilities, random.integers(0, k, n)


@given(held_out())
def test_rows_add_up_to_the_confusion_matrix_and_are_means_of_their_votes(data: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, labels = data
    predictions = PredictionTable.of(probabilities, labels)
    known = ~np.isnan(probabilities[..., 0])
    k = probabilities.shape[-1]
    counted, expected = np.zeros((2, k, k), dtype=int)
    np.add.at(counted, (predictions.label, predictions.predicted), predictions.votes)
    np.add.at(expected, (np.broadcast_to(labels, known.shape)[known], probabilities[known].argmax(1)), 1)
    assert (counted == expected).all()
    assert (predictions.label == labels[predictions.image]).all()
    for i in range(len(predictions)):
        of_image = probabilities[known[:, predictions.image[i]], predictions.image[i]]
        same = of_image[of_image.argmax(1) == predictions.predicted[i]]
        assert len(same) == predictions.votes[i]
        np.testing.assert_allclose(predictions.probabilities[i], same.mean(0), rtol=1e-5)
    np.testing.assert_allclose(predictions.confidence, predictions.probabilities.max(1, initial=0), rtol=1e-6)


@given(held_out(), st.integers(0, 40))
def test_thinning_takes_evenly_from_all_cells_and_the_first_of_each(
    data: tuple[np.ndarray, np.ndarray], n: int
) -> None:
    shown = PredictionTable.of(*data).shown()
    kept = shown.thinned(n)
    assert len(kept) == min(n, len(shown))

    def cells(predictions: PredictionTable) -> dict[tuple[int, int], list[int]]:
        found: dict[tuple[int, int], list[int]] = {}
        for i in range(len(predictions)):
            cell = int(predictions.label[i]), int(predictions.predicted[i])
            found.setdefault(cell, []).append(int(predictions.image[i]))
        return found

    everything, left = cells(shown), cells(kept)
    most = max(map(len, left.values()), default=0)
    for cell, images in everything.items():
        here = left.get(cell, [])
        assert here == images[: len(here)]
        assert len(here) >= min(most - 1, len(images))


def test_all_mistakes_are_shown_with_a_sample_of_the_right_ones_most_confident_first() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 2000)
    probabilities = random.dirichlet(np.ones(4), (1, 2000)).astype(np.float32)
    everything = PredictionTable.of(probabilities, labels)
    shown = everything.shown()
    assert set(shown.image[shown.wrong]) == set(everything.image[everything.wrong])
    assert np.bincount(shown.label[~shown.wrong]).tolist() == [60] * 4
    assert (np.diff(shown.confidence) <= 0).all()


def test_the_mean_over_repeats_leaves_out_those_that_did_not_hold_the_image_out() -> None:
    nan = [np.nan, np.nan]
    probabilities = np.array([[[0.2, 0.8], nan, nan], [[0.6, 0.4], [0.9, 0.1], nan]], dtype=np.float32)
    np.testing.assert_allclose(mean_over_repeats(probabilities), [[0.4, 0.6], [0.9, 0.1], nan], rtol=1e-6)
