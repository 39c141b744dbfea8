"""How large the groups of images are, how many images are copies, and where one group is most of what a fold holds out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from fmnist_cv.errors import UserError

if TYPE_CHECKING:
    from fmnist_cv.data.images import Images
    from fmnist_cv.data.splits import Split, SplitPlan


class DominantGroup(TypedDict):
    """A group that has more than half of the images that a fold holds out."""

    group: str
    images: int
    of: int


class Copies(TypedDict):
    """Images that are copies of each other, and how many different ones they are; of data without groups."""

    images: int
    different: int


def sizes_of_groups(images: Images) -> tuple[int, int] | None:
    """The number of groups and the number of images of the largest; None without groups."""
    if images.groups is None:
        return None
    counts = np.bincount(images.groups.cpu().numpy())
    return int((counts > 0).sum()), int(counts.max())


def describe_sizes(n_groups: int, largest: int) -> str:
    """ "341 groups, none split; the largest has 12 images"."""
    return (
        f"{n_groups:,} group{'s' if n_groups != 1 else ''}, none split; the largest has {largest:,} "
        f"image{'s' if largest != 1 else ''}"
    )


def count_copies(images: Images) -> Copies | None:
    """The images that are copies of each other; None without any, and where groups hold them together."""
    if images.copies is None:
        return None
    counts = np.bincount(images.copies.cpu().numpy())
    several = counts[counts > 1]
    return {"images": int(several.sum()), "different": len(several)} if len(several) else None


def dominant_groups(images: Images, splits: Sequence[Split]) -> list[DominantGroup | None]:
    """For each split, the group that has more than half of the images that it holds out, or None."""
    if images.groups is None:
        return [None] * len(splits)
    groups = images.groups.cpu().numpy()
    found: list[DominantGroup | None] = []
    for split in splits:
        counts = np.bincount(groups[split.validation])
        group, n = int(counts.argmax()), int(counts.max())
        name = str(group) if images.group_names is None else images.group_names[group]
        dominates = 2 * n > len(split.validation)
        found.append({"group": name, "images": n, "of": len(split.validation)} if dominates else None)
    return found


def refuse_lost_classes(images: Images, splits: Sequence[Split], plan: SplitPlan) -> None:
    """Refuse stratified splits in which whole groups leave a training part without a class that it is scored on.

    Raises:
        UserError: groups make the stratification impossible.
    """
    if images.groups is None or not plan.stratify or plan.is_given:
        return
    labels, groups = images.labels.cpu().numpy(), images.groups.cpu().numpy()
    for split in splits:
        if len(lost := np.setdiff1d(labels[split.validation], labels[split.train])):
            n_groups = len(np.unique(groups[labels == lost[0]]))
            raise UserError(
                f"the groups make a stratified split impossible: all images of the class '{images.class_names[lost[0]]}' are in "
                f"{n_groups:,} group{'' if n_groups == 1 else 's'}, so that fold {split.fold} would hold out the class and train on "
                "none of its images; lower cv.n_splits, give smaller groups, or allow it with cv.stratify false"
            )
