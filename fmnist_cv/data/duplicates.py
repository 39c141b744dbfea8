"""Copies of images, equal in every pixel: found, kept together, or refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fmnist_cv.errors import UserError
from fmnist_cv.utils.user_text import make_console, print_line

if TYPE_CHECKING:
    from fmnist_cv.data.images import Images

Duplicates = Literal["group", "keep", "refuse"]


def handle_duplicates(images: Images, duplicates: Duplicates, source: str, tell: bool = True) -> Images:
    """The images, with copies marked as such; or, where the data have groups, with those joined that share an image.

    Args:
        images: all training images.
        duplicates: "group" keeps copies together, with a warning; "keep" leaves all as it is; "refuse" raises.
        source: the name of the data, for messages.
        tell: whether to warn.

    Raises:
        UserError: there are copies, and they are refused.
    """
    if duplicates == "keep":
        return images
    codes = pd.factorize(np.array(images.pixel_digests(), dtype=object))[0]
    copied = np.flatnonzero(np.bincount(codes)[codes] > 1)
    if not len(copied):
        return images
    n_sets = len(np.unique(codes[copied]))
    first, second = np.flatnonzero(codes == codes[copied[0]])[:2]
    found = (
        f"{len(copied):,} of {len(images):,} images of {source} have the same pixels as another ({n_sets:,} different image{'s'[: n_sets - 1]}), "
        f"e.g. {_name(images, first)} and {_name(images, second)}"
    )
    labels = pd.Series(images.labels.cpu().numpy()[copied]).groupby(codes[copied]).nunique()
    if n_conflicts := int((labels > 1).sum()):
        found += f"; {n_conflicts:,} of them have several labels"
    if duplicates == "refuse":
        raise UserError(f"{found}; remove the copies, or keep them together with data.duplicates group")
    if tell:
        _warn(f"{found}. Copies are kept together, on one side of each split.")
    if images.groups is None:
        return replace(images, copies=torch.from_numpy(codes.astype(np.int64)))
    return _joined(images, images.groups.cpu().numpy(), codes)


@cache
def _warn(text: str) -> None:
    """Once in a process: a command may read its images several times."""
    print_line(make_console(stderr=True), text, style="yellow")


def refuse_shared(train: Images, test: Images) -> None:
    """Refuse a test set that holds copies of training images.

    Raises:
        UserError: with their number and the first of them.
    """
    where = {digest: i for i, digest in enumerate(train.pixel_digests())}
    shared = [(i, where[digest]) for i, digest in enumerate(test.pixel_digests()) if digest in where]
    if shared:
        i, j = shared[0]
        raise UserError(
            f"{len(shared):,} of {len(test):,} test images have the same pixels as a training image, e.g. {_name(test, i)} and "
            f"{_name(train, j)}; remove them, or allow them with data.duplicates keep"
        )


def _name(images: Images, index: int) -> str:
    return f"'{images.names[index]}'" if images.names is not None else f"number {index}"


def _joined(images: Images, groups: np.ndarray, codes: np.ndarray) -> Images:
    """With groups that are as large as needed to hold all copies of their images."""
    n_codes, n_groups = int(codes.max()) + 1, int(groups.max()) + 1
    # a code and a group that share an image are joined, and so are all that are joined to them
    graph = coo_array((np.ones(len(codes)), (codes, n_codes + groups)), shape=(n_codes + n_groups,) * 2)
    numbers = pd.factorize(connected_components(graph, directed=False)[1][codes])[0].astype(np.int64)
    known = [*map(str, range(n_groups))] if images.group_names is None else [*images.group_names]
    frame = pd.DataFrame({"group": numbers, "name": [known[i] for i in groups]})
    names = frame.drop_duplicates().groupby("group")["name"].agg(" = ".join)
    return replace(images, groups=torch.from_numpy(numbers), group_names=tuple(names))
