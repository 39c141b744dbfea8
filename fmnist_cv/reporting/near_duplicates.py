"""Near-duplicate images, found by their pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics.pairwise import euclidean_distances
from torch import Tensor

from fmnist_cv.reporting.near_pairs import CHUNK, Advance, near_pairs, pair_distances
from fmnist_cv.reporting.sprites import thumbnails

# A pair is near if its distance is below this share of the usual distance to the nearest neighbour. Below it, pairs of
# Fashion-MNIST look identical; from 0.3 on, garments of the same cut with different prints are included.
SHARE_OF_USUAL = 0.25

MAX_PAIRS = 5_000_000
_SAMPLE, _OTHERS = 300, 10_000


@dataclass(frozen=True)
class NearDuplicates:
    """Groups of near-duplicates, stored as the images except the first of each group.

    Attributes:
        image: int64 (m,).
        other: int64 (m,), the first image of its group.
        distance: float64 (m,), to the nearest image of the group, as a share of the usual distance to the nearest neighbour;
            0 for equal thumbnails.
        complete: False where so many images are similar that only equal ones were searched.
    """

    image: np.ndarray
    other: np.ndarray
    distance: np.ndarray
    complete: bool

    @property
    def groups(self) -> list[np.ndarray]:
        """The images of each group, the closest groups first."""
        firsts, group = np.unique(self.other, return_inverse=True)
        closest = np.full(len(firsts), np.inf)
        np.minimum.at(closest, group, self.distance)
        return [np.array([firsts[g], *self.image[group == g]]) for g in np.argsort(closest, kind="stable")]


def find_near_duplicates(images: Tensor, advance: Advance = lambda share: None) -> NearDuplicates:
    """All groups of images that are near each other, directly or through other images.

    Thumbnails are compared by Euclidean distance, the threshold relative to the median distance of an image to its nearest
    (as cleanlab's Datalab sets it, on features).

    Args:
        images: stored pixels (n, channels, h, w), or their thumbnails, which are the same to it.
        advance: called with the share that is done.
    """
    pixels = thumbnails(images).reshape(len(images), -1).numpy()
    rows = np.ascontiguousarray(pixels).view(f"V{pixels.shape[1]}")[:, 0]
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    pairs, distances, complete = _near_pairs(pixels[first], advance)
    equal = np.flatnonzero(first[inverse] != np.arange(len(images)))
    pairs = np.concatenate([first[pairs], np.stack([first[inverse[equal]], equal], 1)])
    return _grouped(len(images), pairs, np.concatenate([distances, np.zeros(len(equal))]), complete)


def _near_pairs(pixels: np.ndarray, advance: Advance) -> tuple[np.ndarray, np.ndarray, bool]:
    """(pairs int64 (p, 2), distances as shares of the usual one, whether pairs were searched) of distinct images."""
    none = np.empty((0, 2), dtype=np.int64), np.empty(0)
    if len(pixels) < 3:  # with two images there is no usual distance to compare theirs with
        return *none, True
    random = np.random.default_rng(0)
    sample = np.sort(random.choice(len(pixels), min(_SAMPLE, len(pixels)), replace=False))
    usual = _usual_distance(pixels, sample)
    radius = SHARE_OF_USUAL * usual
    others = np.sort(random.choice(len(pixels), min(_OTHERS, len(pixels)), replace=False))
    distances = euclidean_distances(pixels[sample].astype(np.float32), pixels[others].astype(np.float32))
    distances[sample[:, None] == others] = np.inf  # exclude the image itself
    if float((distances < radius).mean()) * len(pixels) ** 2 / 2 > MAX_PAIRS:
        return *none, False
    pairs = near_pairs(pixels, sample, distances, radius, MAX_PAIRS, advance)
    if pairs is None:
        return *none, False
    return pairs, pair_distances(pixels, pairs) / usual, True


def _usual_distance(pixels: np.ndarray, sample: np.ndarray) -> float:
    """Median over a sample of the distance to the nearest other image."""
    nearest = np.full(len(sample), np.inf)
    asked = pixels[sample].astype(np.float32)
    for start in range(0, len(pixels), CHUNK):
        part = pixels[start : start + CHUNK]
        distances = euclidean_distances(asked, part.astype(np.float32), squared=True)
        here = (sample >= start) & (sample < start + len(part))
        distances[here, sample[here] - start] = np.inf
        nearest = np.minimum(nearest, distances.min(1))
    return float(np.sqrt(np.median(nearest)))


def _grouped(n: int, pairs: np.ndarray, distances: np.ndarray, complete: bool) -> NearDuplicates:
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    group = connected_components(graph, directed=False)[1]
    first = np.unique(group, return_index=True)[1][group]  # np.unique returns the first index of each
    nearest = np.full(n, np.inf)
    np.minimum.at(nearest, pairs.ravel(), np.repeat(distances, 2))
    image = np.flatnonzero(first != np.arange(n))
    return NearDuplicates(image, first[image], nearest[image], complete)
