"""Whole groups of images cut off from the rest, with the classes' shares kept as nearly as the groups allow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

_ROUNDS = 10  # gains of later ones are hardly measurable, and take minutes where there are very many groups


def cut_groups(labels: Integers, groups: Integers, n_held_out: int, seed: int) -> tuple[Integers, Integers]:
    """(the rest, the part held out): random whole groups with about `n_held_out` images, stratified by class.

    Groups of several images are added and removed, in a random order, as long as that brings the part closer to its share
    of each class and of all images in such groups. Images that are alone in their group then fill up what is missing, so
    that a few groups among many images cost no more than their own images. If all groups are too large for the count, the
    part is the group that comes nearest to it.

    Args:
        labels: int64 (n,), the class of each image; all the same for a cut that does not regard them.
        groups: int64 (n,), the group of each image.
        n_held_out: from 1 to n - 1.
        seed: decides what is drawn.

    Returns:
        Two sorted arrays of int64 indices, none of them empty.

    Raises:
        ValueError: there is only one group, or the count is out of range.
    """
    n = len(labels)
    if not 0 < n_held_out < n:
        raise ValueError(f"the part must have from 1 to {n - 1} images")
    numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    if len(sizes) < 2:
        raise ValueError("all images are in one group")
    random = np.random.default_rng(seed)
    classes = np.unique(labels, return_inverse=True)[1]
    share, in_class = n_held_out / n, np.bincount(classes)
    alone = sizes[numbers] == 1
    chosen = np.zeros(len(sizes), dtype=bool)
    several = random.permutation(np.flatnonzero(sizes > 1))
    if len(several):
        chosen[_choose(several, classes[~alone], numbers[~alone], share, bool(alone.any()))] = True
    taken = chosen[numbers]
    missing = np.maximum(share * in_class - np.bincount(classes[taken], minlength=len(in_class)), 0)
    missing = np.minimum(missing, np.bincount(classes[alone], minlength=len(in_class)))
    quota = np.floor(missing).astype(np.int64)
    order = random.permutation(np.flatnonzero(missing > quota))  # rounded up, from the largest remainder on
    order = order[np.argsort((quota - missing)[order], kind="stable")]
    quota[order[: max(n_held_out - int(taken.sum()) - int(quota.sum()), 0)]] += 1
    singles = random.permutation(np.flatnonzero(alone))
    singles = singles[np.argsort(classes[singles], kind="stable")]
    of_class = np.bincount(classes[singles], minlength=len(in_class))
    place = np.arange(len(singles)) - np.repeat(np.cumsum(of_class) - of_class, of_class)
    taken[singles[place < np.repeat(quota, of_class)]] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)


def images_in_groups(labels: Integers, groups: Integers | None, n_classes: int) -> Integers:
    """int64 (n_classes,): images of each class that others share a group with; a part may miss its share by so many."""
    if groups is None:
        return np.zeros(n_classes, dtype=np.int64)
    numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    return np.bincount(labels[sizes[numbers] > 1], minlength=n_classes)


def _choose(order: Integers, classes: Integers, numbers: Integers, share: float, may_be_trivial: bool) -> list[int]:
    """Those groups of `order` that together have nearly this share of each class, and of all images."""
    n_classes = int(classes.max()) + 1
    pairs, counts = np.unique(numbers * n_classes + classes, return_counts=True)
    # lists, since arrays of one or two numbers, for each of thousands of groups, are ten times as slow
    parts: dict[int, list[tuple[int, int]]] = {group: [] for group in order.tolist()}
    for group, of_class, count in zip(
        (pairs // n_classes).tolist(), (pairs % n_classes).tolist(), counts.tolist(), strict=True
    ):
        parts[group].append((of_class, count))
    for of_group in parts.values():
        # the last place stands for all classes: a class that is too rare to get a group leaves its share to others
        of_group.append((n_classes, sum(count for _, count in of_group)))
    excess: list[float] = [-share * n for n in [*np.bincount(classes, minlength=n_classes).tolist(), len(classes)]]
    chosen: set[int] = set()

    def change(group: int) -> float:
        """Of the sum of squares, if the group changes sides."""
        sign = -1 if group in chosen else 1
        return sum(n * (2 * sign * excess[place] + n) for place, n in parts[group])

    def toggle(group: int) -> None:
        sign = -1 if group in chosen else 1
        for place, n in parts[group]:
            excess[place] += sign * n
        chosen.symmetric_difference_update({group})

    for _ in range(_ROUNDS):
        before = chosen.copy()
        for group in parts:
            if change(group) < -1e-9:
                toggle(group)
        if chosen == before:
            break
    if not may_be_trivial and len(chosen) in (0, len(parts)):
        toggle(min(parts, key=change))
    return sorted(chosen)
