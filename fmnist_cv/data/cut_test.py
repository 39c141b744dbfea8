"""A test set that is cut off from the training images, once and for all, before any fold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit

from fmnist_cv.data.group_cut import cut_groups
from fmnist_cv.data.splitter_folds import Indices
from fmnist_cv.errors import UserError, did_you_mean
from fmnist_cv.runtime import derive_seed

if TYPE_CHECKING:
    from fmnist_cv.data.images import Images

TestCut = float | list[str | int]  # what cv.test holds: a fraction, or the names of groups

_CUT = 5_000  # keeps its seed apart from those of splits


def check_cut(cut: TestCut) -> None:
    """Refuse a fraction out of range and an empty list.

    Raises:
        UserError: with what to give instead.
    """
    if isinstance(cut, list) and not cut:
        raise UserError("cv.test is an empty list; name the groups of the test set, or give a fraction such as 0.2")
    if not isinstance(cut, list) and not 0 < cut < 1:
        raise UserError(f"cv.test is {cut}; it is a fraction between 0 and 1, or a list of names of groups")


def test_indices(images: Images, cut: TestCut | None) -> Indices:
    """The images of the test set, as sorted indices. The images alone decide, whatever the experiment's seed.

    Args:
        images: all training images.
        cut: a fraction of each class, as nearly as whole groups allow; the names of groups; or None for no test set.

    Raises:
        UserError: there are no such groups, a part would be empty, a class is too small to be divided, or groups are so large
            that the fraction is missed by half of it.
    """
    if cut is None:
        return np.empty(0, dtype=np.int64)
    check_cut(cut)
    n = len(images)
    labels, together = images.labels.cpu().numpy(), images.kept_together
    if isinstance(cut, list):
        chosen = np.flatnonzero(np.isin(_groups(images), [_number(images, str(name)) for name in cut]))
        if len(chosen) == n:
            raise UserError("cv.test names all groups, so that no image is left to train on; leave some out")
        return _with_all_classes_left(images, chosen)
    seed = derive_seed(0, _CUT)
    try:
        if together is None:
            _, chosen = next(StratifiedShuffleSplit(1, test_size=cut, random_state=seed).split(labels, labels))
        else:
            _, chosen = cut_groups(labels, together, round(cut * n), seed)
    except ValueError as error:
        raise UserError(f"cv.test is {cut}, but such a test set cannot be cut off: {error}") from None
    if together is not None:
        _check_size(images, together, len(chosen), cut)
    return _with_all_classes_left(images, np.sort(chosen).astype(np.int64))


def _check_size(images: Images, together: Indices, n_chosen: int, cut: float) -> None:
    """Refuse a test set that misses the fraction by half of it, or of what it leaves, since groups and copies stay whole."""
    n = len(together)
    if abs(n_chosen - cut * n) < min(cut, 1 - cut) * n / 2:
        return
    sizes = np.unique(together, return_counts=True)[1]
    what, largest, or_else = "sets of copies", f"{sizes.max():,} images have the same pixels", ""
    if images.groups is not None:
        what, largest = "groups", f"the group '{_names(images)[sizes.argmax()]}' has {sizes.max():,}"
        or_else = ", or the names of the test set's groups"
    raise UserError(
        f"cv.test is {cut}, but whole {what} give a test set of {n_chosen:,} of {n:,} images: {largest}; give another fraction"
        + or_else
    )


def _with_all_classes_left(images: Images, chosen: Indices) -> Indices:
    """Refuse a test set that takes all images of a class, which then nothing can learn."""
    labels = images.labels.cpu().numpy()
    if len(lost := np.setdiff1d(labels, np.delete(labels, chosen))):
        raise UserError(
            f"cv.test takes all images of the class '{images.class_names[lost[0]]}', so that no model can learn it; leave some "
            "of its groups to the training"
        )
    return chosen


def _groups(images: Images) -> Indices:
    if images.groups is None:
        raise UserError(
            "cv.test names groups, but the data have none; give a fraction such as 0.2, or data with groups"
        )
    return images.groups.cpu().numpy()


def _names(images: Images) -> list[str]:
    """The names of the groups in the order of their numbers, those that images have; of unnamed ones, the numbers."""
    numbers = np.unique(_groups(images))
    return [str(i) if images.group_names is None else images.group_names[i] for i in numbers]


def _number(images: Images, name: str) -> int:
    """The number of the group of a name; groups that were joined, since they hold copies of images, have several."""
    numbers, names = np.unique(_groups(images)), _names(images)
    for number, known in zip(numbers, names, strict=True):
        if name == known or name in known.split(" = "):
            return int(number)
    first = ", ".join(f"'{known}'" for known in names[:3])
    raise UserError(
        f"cv.test names the group '{name}', which the data do not have"
        + did_you_mean(name, names, f"they have {len(names):,}, the first are {first}")
    )
