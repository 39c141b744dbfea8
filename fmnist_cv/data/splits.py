"""Splits: made once with scikit-learn, and checked."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
)

from fmnist_cv.data.group_cut import cut_groups
from fmnist_cv.data.split_checks import check_splits
from fmnist_cv.data.splitter_folds import Indices, draw_folds, first_copies
from fmnist_cv.errors import UserError
from fmnist_cv.runtime import derive_seed

# by (stratified, grouped)
_K_FOLDS = {
    (True, False): StratifiedKFold,
    (False, False): KFold,
    (True, True): StratifiedGroupKFold,
    (False, True): GroupKFold,
}

# Keeps the seeds of hold-outs and samples apart from those of the folds they are cut from.
_HOLDOUT, _INNER, _SAMPLE = 1_000, 2_000, 3_000


@dataclass(frozen=True)
class Split:
    """The images that one model trains on and is scored on, as sorted indices into the training images.

    Attributes:
        train: images the gradient sees.
        validation: images held out and scored.
        inner: images cut from the training part on which the epoch is chosen, or None.
        repeat, fold: the split's place in the repeated k-fold; a hold-out is fold 0.
        is_refit: all images are trained on and none held out; `validation` is empty then, and only then.
    """

    train: Indices
    validation: Indices
    inner: Indices | None = None
    repeat: int = 0
    fold: int = 0
    is_refit: bool = False

    @classmethod
    def refit(cls, n: int) -> Split:
        """The split of a final model that is trained on all n images."""
        return cls(np.arange(n), np.arange(0), is_refit=True)


@dataclass(frozen=True)
class SplitPlan:
    """How the training images are split.

    Attributes:
        n_splits: k, at least 2.
        n_repeats: how often the k-fold is repeated, with other folds.
        stratify: keep the proportions of the classes in every part.
        holdout: one split instead of k: a fraction (0.2), a count (5000), or the first n images ("first:5000").
        inner_holdout: fraction of each training part on which the epoch is chosen instead of on the fold.
        seed: determines all random splits.
        train_size: train on a sample of this many images of each training part, for learning curves.
        splitter: a splitter of scikit-learn, its class path or {"class_path": ..., "init_args": ...}, in place of the k-fold.
        splits: a file of folds, or "data" for the folds that the data give, in place of the k-fold.
    """

    n_splits: int = 5
    n_repeats: int = 1
    stratify: bool = True
    holdout: float | int | str | None = None
    inner_holdout: float | None = None
    seed: int = 0
    train_size: int | None = None
    splitter: str | dict[str, Any] | None = None
    splits: str | None = None

    def __post_init__(self) -> None:
        ways = {"cv.holdout": self.holdout, "cv.splitter": self.splitter, "cv.splits": self.splits}
        if len(given := [f"{key} ({value})" for key, value in ways.items() if value is not None]) > 1:
            raise UserError(f"{' and '.join(given)} contradict each other: each decides the splits; keep one of them")
        if self.holdout is None and self.n_splits < (1 if self.is_given else 2):
            raise UserError(f"cv.n_splits is {self.n_splits}; k-fold cross-validation needs at least 2")
        if self.n_repeats < 1:
            raise UserError(f"cv.n_repeats is {self.n_repeats}; it must be at least 1")
        if self.takes_first and not re.fullmatch(r"first:\s*\d+", str(self.holdout)):
            raise UserError(f"cv.holdout is '{self.holdout}'; give a fraction (0.2), a count (5000) or 'first:5000'")
        if self.takes_first and self.n_repeats > 1:
            raise UserError("cv.holdout 'first:n' is the same split every time; cv.n_repeats must be 1")
        if self.inner_holdout is not None and not 0 < self.inner_holdout < 1:
            raise UserError(f"cv.inner_holdout is {self.inner_holdout}; it is a fraction between 0 and 1")
        if self.train_size is not None and self.train_size < 1:
            raise UserError(f"cv.train_size is {self.train_size}; it is a number of images, or null for all")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; it must not be negative")

    @property
    def is_given(self) -> bool:
        """Whether a splitter, a file or the data decide the splits; they may leave images that are never held out."""
        return self.splitter is not None or self.splits is not None

    @property
    def is_open(self) -> bool:
        """Whether the images may decide how many folds there are: unless a hold-out or a number other than the default is asked for."""
        is_default = (self.n_splits, self.n_repeats, self.holdout) == (SplitPlan.n_splits, SplitPlan.n_repeats, None)
        return self.is_given or is_default

    @property
    def folds_per_repeat(self) -> int:
        """k, or 1 for a hold-out."""
        return 1 if self.holdout is not None else self.n_splits

    @property
    def n_folds(self) -> int:
        """How many models are trained in total."""
        return self.folds_per_repeat * self.n_repeats

    @property
    def takes_first(self) -> bool:
        """Whether the hold-out is the first n images."""
        return isinstance(self.holdout, str)

    def n_held_out(self, n: int) -> int:
        """Images that a hold-out takes from n; 0 where the setting makes no sense."""
        if isinstance(self.holdout, str):
            match = re.fullmatch(r"first:\s*(\d+)", self.holdout)
            return int(match[1]) if match else 0
        if isinstance(self.holdout, float) and 0 < self.holdout < 1:
            return round(self.holdout * n)
        if self.holdout is None or not math.isfinite(self.holdout) or self.holdout != int(self.holdout):
            return 0
        return int(self.holdout)


def make_splits(
    labels: Indices,
    plan: SplitPlan,
    groups: Indices | None = None,
    are_copies: bool = False,
    class_names: Sequence[str] | None = None,
) -> list[Split]:
    """Make all splits of a plan, in the order repeat 0 fold 0, repeat 0 fold 1, ...

    Args:
        labels: int64 (n,), the class of each training image.
        plan: what to draw.
        groups: int64 (n,); images of one group stay together in every split.
        are_copies: images of one number are no group of the data but copies of each other, which leave the folds of the
            other images stratified as they would be without them.
        class_names: for messages; by default the numbers.

    Raises:
        UserError: the data cannot be split like this, e.g. a class with fewer images than folds.
    """
    labels = np.asarray(labels)
    if plan.holdout is not None:
        outer = _holdouts(labels, plan, groups)
    else:
        outer = _k_folds(labels, plan, groups, are_copies, class_names)
    return finish_splits(outer, labels, plan, groups, are_copies)


def finish_splits(
    outer: list[Split], labels: Indices, plan: SplitPlan, groups: Indices | None, are_copies: bool
) -> list[Split]:
    """Cut the plan's inner hold-outs and samples from the training parts of splits, and check the result.

    Raises:
        UserError: a part cannot be cut, or the splits are not those that the plan asks for.
    """
    grouped = groups is not None and not are_copies
    splits = [_take_sample(_cut_inner(split, labels, plan, groups), labels, plan, grouped) for split in outer]
    check_splits(splits, labels, plan, groups, are_copies)
    return splits


def _k_folds(
    labels: Indices, plan: SplitPlan, together: Indices | None, are_copies: bool, class_names: Sequence[str] | None
) -> list[Split]:
    k, groups = plan.n_splits, None if are_copies else together
    different, once = labels, ""
    if together is not None and are_copies:
        different, once = labels[first_copies(together)[0]], ", copies counted once, for the class of the first"
    if k > len(different):
        raise UserError(f"cv.n_splits is {k}, but there are only {len(different)} training images{once}")
    if plan.stratify:
        classes = np.unique(labels)
        counts = np.bincount(different, minlength=classes[-1] + 1)[classes]
        if counts.min() < k:
            rarest = classes[counts.argmin()]
            name = rarest if class_names is None else f"'{class_names[rarest]}'"
            raise UserError(
                f"cv.n_splits is {k}, but class {name} has only {counts.min()} training images{once}; "
                f"a stratified split needs at least one per fold: lower cv.n_splits or set cv.stratify to false"
            )
    n_groups = k if groups is None else len(np.unique(groups))
    if n_groups < k:
        raise UserError(
            f"cv.n_splits is {k}, but the data have only {n_groups} group{'s'[: n_groups - 1]}, each of which is held out as a whole; "
            "lower cv.n_splits, or leave the groups out"
        )
    splits = []
    for repeat in range(plan.n_repeats):
        random_state = derive_seed(plan.seed, repeat)
        splitter = _K_FOLDS[plan.stratify, groups is not None](k, shuffle=True, random_state=random_state)
        for fold, (train, validation) in enumerate(draw_folds(splitter, labels, together, are_copies)):
            splits.append(Split(train, validation, None, repeat, fold))
    return splits


def _holdouts(labels: Indices, plan: SplitPlan, groups: Indices | None) -> list[Split]:
    n, n_validation = len(labels), plan.n_held_out(len(labels))
    if not 0 < n_validation < n:
        raise UserError(
            f"cv.holdout is {plan.holdout}; give a fraction between 0 and 1, or a count between 1 and {n - 1}"
        )
    if plan.takes_first:
        return [Split(np.arange(n_validation, n), np.arange(n_validation))]
    splits = []
    for repeat in range(plan.n_repeats):
        train, validation = _shuffled(np.arange(n), n_validation, labels, plan, groups, (_HOLDOUT, repeat))
        splits.append(Split(train, validation, None, repeat))
    return splits


def _cut_inner(split: Split, labels: Indices, plan: SplitPlan, groups: Indices | None) -> Split:
    if plan.inner_holdout is None:
        return split
    n_inner = round(plan.inner_holdout * len(split.train))
    part = (_INNER, split.repeat, split.fold)
    train, inner = _shuffled(split.train, n_inner, labels, plan, groups, part)
    return Split(train, split.validation, inner, split.repeat, split.fold)


def _take_sample(split: Split, labels: Indices, plan: SplitPlan, grouped: bool) -> Split:
    if plan.train_size is None or plan.train_size == len(split.train):
        return split
    if plan.train_size > len(split.train):
        raise UserError(f"cv.train_size is {plan.train_size}, but the training part has {len(split.train)} images")
    if grouped:
        raise UserError("cv.train_size cannot be used with grouped data: whole groups cannot meet an exact count")
    part = (_SAMPLE, split.repeat, split.fold)  # of copies, the sample may have some: the others are on no side
    _, sample = _shuffled(split.train, plan.train_size, labels, plan, None, part)
    return Split(sample, split.validation, split.inner, split.repeat, split.fold)


def _shuffled(
    indices: Indices, n_held_out: int, labels: Indices, plan: SplitPlan, groups: Indices | None, part: tuple[int, ...]
) -> tuple[Indices, Indices]:
    """(the rest, `n_held_out` of the indices): a random split, stratified if the plan is.

    Of grouped images, it has as many as whole groups allow.
    """
    random_state = derive_seed(plan.seed, *part)
    here = labels[indices]
    try:
        if groups is not None:
            of_class = here if plan.stratify else np.zeros_like(here)
            rest, held_out = cut_groups(of_class, groups[indices], n_held_out, random_state)
        else:
            make = StratifiedShuffleSplit if plan.stratify else ShuffleSplit
            splitter: StratifiedShuffleSplit | ShuffleSplit = make(1, test_size=n_held_out, random_state=random_state)
            rest, held_out = next(splitter.split(here, here))
    except ValueError as error:
        raise UserError(f"a hold-out of {n_held_out} of {len(indices)} images cannot be cut: {error}") from None
    return np.sort(indices[rest]), np.sort(indices[held_out])
