"""Folds that a splitter of scikit-learn draws: those of groups once per process, and with copies of an image kept together."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import model_selection as sklearn_splitters

Indices = NDArray[np.int64]
Parts = list[tuple[Indices, Indices]]  # training and validation part of each split

# These draw from any images by their number and labels. Others may know each image by its place, as PredefinedSplit does.
_OF_ANY_IMAGES = (
    sklearn_splitters.KFold,
    sklearn_splitters.LeaveOneOut,
    sklearn_splitters.LeavePOut,
    sklearn_splitters.RepeatedKFold,
    sklearn_splitters.RepeatedStratifiedKFold,
    sklearn_splitters.ShuffleSplit,
    sklearn_splitters.StratifiedKFold,
    sklearn_splitters.StratifiedShuffleSplit,
    sklearn_splitters.TimeSeriesSplit,
)
_KEPT = 16
_drawn: dict[bytes, Parts] = {}  # by a digest of splitter, labels and groups: whole groups of many images take seconds


def draw_folds(splitter: Any, labels: Indices, together: Indices | None, are_copies: bool) -> Parts:
    """The sorted training and validation part of each split.

    Args:
        splitter: of scikit-learn's interface; one of scikit-learn itself draws the same again for the same images.
        labels: int64 (n,).
        together: int64 (n,) or None; images of one number are one group, which the splitter gets to know.
        are_copies: these are copies instead: a splitter that takes any images gets one of each number, and the others follow
            it, so that a few copies among many images cost neither the exact stratification of the others nor its speed.
            Another gets all images, without groups, and may put copies on both sides.
    """
    if together is None or not are_copies:
        return _once(splitter, labels, together)
    if type(splitter) not in _OF_ANY_IMAGES:
        return _once(splitter, labels, None)
    first, place = first_copies(together)
    return [
        (np.flatnonzero(np.isin(place, train)), np.flatnonzero(np.isin(place, validation)))
        for train, validation in _once(splitter, labels[first], None)
    ]


def first_copies(copies: Indices) -> tuple[Indices, Indices]:
    """The first image of each number, ascending; and for each image, the place of its number's first one among these."""
    place = pd.factorize(copies)[0]
    return np.unique(place, return_index=True)[1], place


def _once(splitter: Any, labels: Indices, groups: Indices | None) -> Parts:
    # one of a user may draw otherwise each time; without groups it is fast, and folds of single images are too many to keep
    if groups is None or not type(splitter).__module__.startswith("sklearn."):
        return _draw(splitter, labels, groups)
    key = hashlib.blake2b(pickle.dumps((splitter, labels, groups))).digest()
    if key not in _drawn:
        if len(_drawn) == _KEPT:
            _drawn.clear()
        _drawn[key] = _draw(splitter, labels, groups)
    return _drawn[key]


def _draw(splitter: Any, labels: Indices, groups: Indices | None) -> Parts:
    found = splitter.split(np.zeros((len(labels), 1)), labels, groups)
    return [(np.sort(train).astype(np.int64), np.sort(validation).astype(np.int64)) for train, validation in found]
