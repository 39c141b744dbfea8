"""Predictions for images that the models were not trained on, and the selection that the page shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLE = 240  # correctly classified images that are shown, over all classes


@dataclass(frozen=True)
class PredictionTable:
    """One row per image and predicted class: an image that r repeats hold out has 1 to r rows.

    The votes of the rows with one label and one predicted class add up to that cell of the confusion matrix.

    Attributes:
        image: int64 (m,), index of the image in its set.
        label: int64 (m,).
        predicted: int64 (m,).
        votes: int64 (m,), number of repeats that predict this class.
        probabilities: float32 (m, n_classes), mean over these repeats, so `predicted` is the most probable class.
    """

    image: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    votes: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of(cls, probabilities: np.ndarray, labels: np.ndarray) -> PredictionTable:
        """From probabilities (n_repeats, n, n_classes), NaN where a repeat did not hold an image out, and labels (n,)."""
        n_classes = probabilities.shape[-1]
        held_out = ~np.isnan(probabilities[..., 0])
        repeat, image = np.nonzero(held_out)
        key = image * n_classes + probabilities[held_out].argmax(1)
        keys, row, votes = np.unique(key, return_inverse=True, return_counts=True)
        total = np.zeros((len(keys), n_classes), dtype=np.float64)
        for r in range(len(probabilities)):  # within one repeat, no row comes twice
            total[row[repeat == r]] += probabilities[r, image[repeat == r]]
        image, predicted = np.divmod(keys, n_classes)
        return cls(image, labels[image], predicted, votes, (total / votes[:, None]).astype(np.float32))

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, rows: np.ndarray) -> PredictionTable:
        return PredictionTable(*(column[rows] for column in vars(self).values()))

    @property
    def wrong(self) -> np.ndarray:
        """bool (m,)."""
        wrong: np.ndarray = self.label != self.predicted
        return wrong

    @property
    def confidence(self) -> np.ndarray:
        """float32 (m,): the predicted class's probability."""
        return np.take_along_axis(self.probabilities, self.predicted[:, None], 1)[:, 0]

    def shown(self) -> PredictionTable:
        """All misclassified images and a random sample of the others, equally many per class; the most confident first."""
        n_classes = self.probabilities.shape[1]
        shuffled = np.random.default_rng(0).permutation(np.flatnonzero(~self.wrong))
        place = _place_within(self.label[shuffled])
        chosen = np.concatenate([np.flatnonzero(self.wrong), shuffled[place < max(4, SAMPLE // n_classes)]])
        return self[chosen[np.argsort(-self.confidence[chosen], kind="stable")]]

    def thinned(self, n: int, n_wrong: int = 0) -> PredictionTable:
        """At most n rows: the first n_wrong misclassified ones, then the first ones of each confusion-matrix cell in turn."""
        place = _place_within(self.label * self.probabilities.shape[1] + self.predicted)
        place[np.flatnonzero(self.wrong)[:n_wrong]] = -1
        return self[np.sort(np.argsort(place, kind="stable")[:n])]


def _place_within(groups: np.ndarray) -> np.ndarray:
    """int64 (n,): for each element, the number of earlier elements of the same group."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    place = np.empty(len(groups), dtype=np.int64)
    place[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
    return place


def mean_over_repeats(probabilities: np.ndarray) -> np.ndarray:
    """float32 (n, n_classes): mean over the repeats that held an image out; NaN if none did."""
    held_out = ~np.isnan(probabilities[..., :1])
    total = np.where(held_out, probabilities, 0).sum(0, dtype=np.float64)
    times = held_out.sum(0)
    return np.where(times > 0, total / np.maximum(times, 1), np.nan).astype(np.float32)
