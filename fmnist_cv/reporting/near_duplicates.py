"""Images that are all but equal, found on their pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import euclidean_distances
from torch import Tensor

from fmnist_cv.reporting.sprites import thumbnails

# A pair is near when its distance is below this share of what is usual between an image and the one most like it. Below it
# the pairs of Fashion-MNIST are copies to the eye; from 0.3 on, garments of one cut with other prints come in.
SHARE_OF_USUAL = 0.25

MAX_PAIRS = 5_000_000  # candidates that are compared pixel by pixel
_SAMPLE, _DIMENSIONS, _CHUNK = 300, 24, 20_000


@dataclass(frozen=True)
class NearDuplicates:
    """Groups of images that are all but equal, as the images but the first of each group.

    Attributes:
        image: int64 (m,).
        other: int64 (m,), the first image of its group.
        distance: float64 (m,), to the nearest image of the group, as a share of the usual distance between an image and the
            one most like it; 0 for equal thumbnails.
        complete: False where so many images are alike that only equal ones were looked for.
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


def find_near_duplicates(images: Tensor) -> NearDuplicates:
    """All groups of images that are near each other, directly or through others.

    Thumbnails are compared by Euclidean distance, the threshold relative to the median distance of an image to its nearest
    (as cleanlab's Datalab sets it, on features). A projection onto orthogonal axes never lengthens a distance, so that a
    k-d tree of the first principal components misses no near pair.

    Args:
        images: uint8 (n, channels, h, w).
    """
    pixels = thumbnails(images).reshape(len(images), -1).numpy()
    rows = np.ascontiguousarray(pixels).view(f"V{pixels.shape[1]}")[:, 0]
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    distinct = pixels[first]
    pairs, distances, complete = _near_pairs(distinct)
    equal = np.flatnonzero(first[inverse] != np.arange(len(images)))
    pairs = np.concatenate([first[pairs], np.stack([first[inverse[equal]], equal], 1)])
    return _grouped(len(images), pairs, np.concatenate([distances, np.zeros(len(equal))]), complete)


def _near_pairs(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """(pairs int64 (p, 2), distances as shares of the usual one, whether they were looked for) of distinct images."""
    none = np.empty((0, 2), dtype=np.int64), np.empty(0)
    if len(pixels) < 3:  # of two images, each is the one most like the other: nothing to compare their distance with
        return *none, True
    random = np.random.default_rng(0)
    sample = np.sort(random.choice(len(pixels), min(_SAMPLE, len(pixels)), replace=False))
    usual = _usual_distance(pixels, sample)
    fitted_on = pixels[np.sort(random.choice(len(pixels), min(10_000, len(pixels)), replace=False))].astype(np.float32)
    pca = PCA(min(_DIMENSIONS, *fitted_on.shape), svd_solver="randomized", random_state=0).fit(fitted_on)
    projected = np.concatenate([pca.transform(part.astype(np.float32)) for part in _chunks(pixels)])
    tree, radius = cKDTree(projected), SHARE_OF_USUAL * usual
    reach = 1.001 * radius  # the projection is rounded
    neighbours = tree.query_ball_point(projected[sample], reach, return_length=True) - 1  # each finds itself, too
    if neighbours.mean() * len(pixels) / 2 > MAX_PAIRS:
        return *none, False
    pairs = tree.query_pairs(reach, output_type="ndarray")
    distances = [
        np.linalg.norm(pixels[a].astype(np.float32) - pixels[b], axis=1) for a, b in map(np.transpose, _chunks(pairs))
    ]
    distance = np.concatenate(distances) if distances else none[1]
    near = distance < radius
    return pairs[near].astype(np.int64), distance[near] / usual, True


def _usual_distance(pixels: np.ndarray, sample: np.ndarray) -> float:
    """Median over a sample of the distance to the nearest other image."""
    nearest, start = np.full(len(sample), np.inf), 0
    asked = pixels[sample].astype(np.float32)
    for part in _chunks(pixels):
        distances = euclidean_distances(asked, part.astype(np.float32), squared=True)
        here = (sample >= start) & (sample < start + len(part))
        distances[here, sample[here] - start] = np.inf
        nearest = np.minimum(nearest, distances.min(1))
        start += len(part)
    return float(np.sqrt(np.median(nearest)))


def _chunks(array: np.ndarray) -> list[np.ndarray]:
    return [array[i : i + _CHUNK] for i in range(0, len(array), _CHUNK)]


def _grouped(n: int, pairs: np.ndarray, distances: np.ndarray, complete: bool) -> NearDuplicates:
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    group = connected_components(graph, directed=False)[1]
    first = np.unique(group, return_index=True)[1][group]  # np.unique gives the first place of each
    nearest = np.full(n, np.inf)
    np.minimum.at(nearest, pairs.ravel(), np.repeat(distances, 2))
    image = np.flatnonzero(first != np.arange(n))
    return NearDuplicates(image, first[image], nearest[image], complete)
