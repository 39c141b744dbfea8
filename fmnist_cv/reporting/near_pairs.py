"""Pairs of images nearer than a radius, in time nearly linear in their number: by a k-d tree, or by random cells."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log, log1p

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import norm
from sklearn.decomposition import PCA

# On noise, whose variance is spread over all directions, a tree prunes nothing and would compare all pairs.
SEEN = 5_000  # images that a query of the tree may visit, on average
DIMENSIONS = 24  # of the tree

WIDTH = 8.0  # of a cell, in radii: widths from 4 to 12 need about equally many candidates
CANDIDATES = 5  # expected number per image and table
MISSED = 1e-3  # probability that a pair at the radius shares no cell; at half the radius it is below 1e-6
MAX_TABLES = 100

CHUNK, CELLS = 20_000, 20_000_000

Advance = Callable[[float], None]


def near_pairs(
    pixels: np.ndarray, sample: np.ndarray, distances: np.ndarray, radius: float, max_pairs: int, advance: Advance
) -> np.ndarray | None:
    """int64 (p, 2): pairs of distinct images, each at least once, all nearer than the radius.

    Args:
        pixels: (n, d), of any dtype that float32 holds.
        sample: int64 (m,), indices of some images.
        distances: float32 (m, k), of these to k other images; infinite for an image and itself.
        radius: Euclidean.
        max_pairs: limit on the tree's candidates.
        advance: called with the share that is done.

    Returns:
        None where too many images are almost as near as the radius to separate them in reasonable time.
    """
    random = np.random.default_rng(0)
    pairs = _by_tree(pixels, sample, radius, max_pairs, random)
    if pairs is not None:
        return pairs[pair_distances(pixels, pairs) < radius]
    return _by_cells(pixels, distances, radius, random, advance)


def pair_distances(pixels: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """float32 (p,): Euclidean distance of each pair."""
    found = [
        np.linalg.norm(pixels[a].astype(np.float32) - pixels[b], axis=1)
        for a, b in (pairs[i : i + CHUNK].T for i in range(0, len(pairs), CHUNK))
    ]
    return np.concatenate(found) if found else np.empty(0, dtype=np.float32)


# -- the tree -----------------------------------------------------------------------------------------------


def _by_tree(
    pixels: np.ndarray, sample: np.ndarray, radius: float, max_pairs: int, random: np.random.Generator
) -> np.ndarray | None:
    """All near pairs and some that are too far; None where the tree would visit too many images.

    A projection onto orthogonal axes never lengthens a distance, so a tree of the first principal components misses no
    near pair.
    """
    n = len(pixels)
    fitted_on = pixels[np.sort(random.choice(n, min(10_000, n), replace=False))].astype(np.float32)
    pca = PCA(min(DIMENSIONS, *fitted_on.shape), svd_solver="randomized", random_state=0).fit(fitted_on)
    projected = np.concatenate([pca.transform(pixels[i : i + CHUNK].astype(np.float32)) for i in range(0, n, CHUNK)])
    tree, reach = cKDTree(projected), 1.001 * radius  # the projection is rounded
    if images_seen(tree, projected[sample], reach) > SEEN:
        return None
    neighbours = tree.query_ball_point(projected[sample], reach, return_length=True) - 1  # each also finds itself
    if neighbours.mean() * n / 2 > max_pairs:
        return None
    pairs: np.ndarray = tree.query_pairs(reach, output_type="ndarray").astype(np.int64)
    return pairs


def images_seen(tree: cKDTree, queries: np.ndarray, reach: float) -> float:
    """Average number of points that the tree visits per query: those in the leaves that no plane prunes."""
    seen, nodes = 0, [(tree.tree, np.arange(len(queries)))]
    while nodes:
        node, here = nodes.pop()
        if node.split_dim == -1:
            seen += len(here) * (node.end_idx - node.start_idx)
            continue
        x = queries[here, node.split_dim]
        below, above = here[x <= node.split + reach], here[x >= node.split - reach]
        nodes += [(part, rest) for part, rest in ((node.lesser, below), (node.greater, above)) if len(rest)]
    return seen / len(queries)


# -- random cells -------------------------------------------------------------------------------------------


def share_of_cells(distance_in_widths: np.ndarray | float) -> np.ndarray:
    """The probability that two points at this distance share a cell of a random grid on a random direction.

    Datar, Immorlica, Indyk and Mirrokni, "Locality-sensitive hashing scheme based on p-stable distributions", SoCG 2004,
    section 3.2.
    """
    t = 1 / np.asarray(distance_in_widths, dtype=np.float64)
    share: np.ndarray = 1 - 2 * norm.cdf(-t) - 2 / (np.sqrt(2 * np.pi) * t) * (1 - np.exp(-(t**2) / 2))
    return share


def _by_cells(
    pixels: np.ndarray, distances: np.ndarray, radius: float, random: np.random.Generator, advance: Advance
) -> np.ndarray | None:
    """Pairs that share a cell in one of several tables, each with enough random directions to separate most images."""
    n, width = len(pixels), WIDTH * radius
    together = share_of_cells(distances[np.isfinite(distances)] / width)
    k = next((k for k in range(1, 64) if n / 2 * float(np.mean(together**k)) <= CANDIDATES), 64)
    near = float(share_of_cells(1 / WIDTH)) ** k
    n_tables = ceil(log(MISSED) / log1p(-near))
    if n_tables > MAX_TABLES:
        return None
    directions = random.normal(size=(pixels.shape[1], n_tables * k)).astype(np.float32) / np.float32(width)
    shift = random.random(n_tables * k, dtype=np.float32)
    mix = random.integers(1, 2**62, k) | 1  # hash collisions only add candidates that are too far
    keys = np.empty((n_tables, n), dtype=np.int64)
    rows = max(1, CELLS // (n_tables * k))
    for i in range(0, n, rows):
        cells = np.floor(pixels[i : i + rows].astype(np.float32) @ directions + shift).astype(np.int64)
        keys[:, i : i + rows] = (cells.reshape(-1, n_tables, k) @ mix).T
        advance(0.5 * min(1.0, (i + rows) / n))
    found = np.empty((0, 2), dtype=np.int64)
    for table, of_table in enumerate(keys):
        pairs = _equal_pairs(of_table)
        found = np.unique(np.concatenate([found, pairs[pair_distances(pixels, pairs) < radius]]), axis=0)
        advance(0.5 + 0.5 * (table + 1) / n_tables)
    return found


def _equal_pairs(keys: np.ndarray) -> np.ndarray:
    """int64 (p, 2): indices of all pairs of equal keys, the lower index first."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    places, found, lag = np.arange(len(keys)), [np.empty((0, 2), dtype=np.int64)], 1
    while len(places := places[places + lag < len(keys)]):
        places = places[ordered[places] == ordered[places + lag]]
        found.append(np.stack([order[places], order[places + lag]], 1))
        lag += 1
    return np.concatenate(found)
