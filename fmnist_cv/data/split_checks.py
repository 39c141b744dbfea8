"""Splits that overlap, leave images out, separate what is kept together, or are not stratified: refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fmnist_cv.data.group_cut import images_in_groups
from fmnist_cv.data.splitter_folds import Indices
from fmnist_cv.errors import UserError

if TYPE_CHECKING:
    from fmnist_cv.data.splits import Split, SplitPlan


def check_splits(
    splits: list[Split], labels: Indices, plan: SplitPlan, groups: Indices | None = None, are_copies: bool = False
) -> None:
    """Refuse splits that overlap, leave images out, split groups, or are not stratified although the plan is.

    Raises:
        UserError: the first thing found wrong, by repeat and fold.
    """
    n, everything = len(labels), np.arange(len(labels))
    if len(splits) != plan.n_folds:
        raise UserError(f"there are {len(splits)} splits, but the plan asks for {plan.n_folds}")
    held_out = np.zeros((plan.n_repeats, n), dtype=np.int64)
    n_classes = int(labels.max()) + 1
    slack = images_in_groups(labels, groups, n_classes)
    for split in splits:
        where = f"split of repeat {split.repeat}, fold {split.fold}"
        parts = [split.train, split.validation] + ([] if split.inner is None else [split.inner])
        if any(len(part) == 0 for part in parts):
            spread = (
                f"; whole groups cannot be spread so that each of {plan.n_splits} folds gets some: lower cv.n_splits, or set "
                "cv.stratify to false"
            )
            raise UserError(f"{where}: a part is empty{'' if groups is None else spread}")
        indices = np.sort(np.concatenate(parts))
        if plan.train_size is not None:
            if len(split.train) != plan.train_size or len(np.unique(indices)) < len(indices) or indices[-1] >= n:
                raise UserError(f"{where}: its parts overlap, or it trains on {len(split.train)} images")
        elif plan.is_given:
            if len(np.unique(indices)) < len(indices) or indices[0] < 0 or indices[-1] >= n:
                raise UserError(f"{where}: its parts overlap, or name images that are not there")
        elif not np.array_equal(indices, everything):
            raise UserError(f"{where}: its parts overlap or leave images out")
        if groups is not None and any(
            np.intersect1d(groups[a], groups[b]).size for i, a in enumerate(parts) for b in parts[:i]
        ):
            what = "copies of one image are" if are_copies else "a group is"
            raise UserError(f"{where}: {what} on both sides")
        if (split.inner is None) != (plan.inner_holdout is None):
            raise UserError(f"{where}: it has {'no' if split.inner is None else 'an'} inner part, unlike the plan")
        held_out[split.repeat, split.validation] += 1
        if plan.stratify and not plan.takes_first and not plan.is_given:
            counts = np.bincount(labels[split.validation], minlength=n_classes)
            # whole groups may change the size as well; it is what was asked for that each class's share refers to
            size = len(split.validation) if groups is None else plan.n_held_out(n) or n / plan.n_splits
            share = np.bincount(labels, minlength=n_classes) * (size / n)
            if (np.abs(counts - share) > 1.5 + slack).any():
                way_out = "" if groups is None else "; scikit-learn before 1.8 does not stratify groups: upgrade it"
                raise UserError(f"{where}: not stratified: {counts.tolist()} images per class{way_out}")
    if plan.holdout is None and not plan.is_given and not (held_out == 1).all():
        raise UserError("an image is not held out exactly once per repeat")
    if (held_out > 1).any():
        raise UserError("an image is held out more than once in a repeat")
