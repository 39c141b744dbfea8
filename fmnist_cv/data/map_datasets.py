"""What map-style data sets tell of themselves, also within torch's Subset and ConcatDataset: labels, classes, transform."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from fmnist_cv.errors import UserError

_LABELS = ("targets", "labels", "_labels")  # attributes that hold the labels of data sets of torchvision and its kind


def labels_of(data: Any) -> Tensor | None:
    """int64 (n,): the labels according to the data set's attributes; None where they cannot be found there."""
    if isinstance(data, Subset):
        labels = labels_of(data.dataset)
        return None if labels is None else labels[torch.as_tensor(data.indices)]
    if isinstance(data, ConcatDataset):
        parts = [labels_of(part) for part in data.datasets]
        return None if any(part is None for part in parts) else torch.cat([part for part in parts if part is not None])
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        found: Any = data.tensors[1]
    else:
        found = next((getattr(data, name) for name in _LABELS if hasattr(data, name)), None)
    try:
        array = np.asarray(found)
    except Exception:  # of values that are no array, whatever they are
        return None
    return torch.from_numpy(array.astype(np.int64)) if array.ndim == 1 and array.dtype.kind in "iu" else None


def names_of(data: Any) -> tuple[str, ...] | None:
    """The data set's `classes`, also of one within a Subset or the first within a ConcatDataset."""
    while isinstance(data, Subset | ConcatDataset):
        data = data.dataset if isinstance(data, Subset) else data.datasets[0]
    classes = getattr(data, "classes", None)
    return tuple(map(str, classes)) if isinstance(classes, list | tuple) and classes else None


def with_transform(data: Any, transform: Callable[[Any], Any], source: str) -> Any:
    """The same data set with another transform; what it consists of is copied where it is wrapped.

    Args:
        data: a data set with an attribute `transform`, as torchvision's have; also in a Subset or a ConcatDataset.
        transform: takes its place.
        source: what the data are called in messages.

    Raises:
        UserError: it has no such attribute.
    """
    changed = copy.copy(data)
    if isinstance(data, Subset):
        changed.dataset = with_transform(data.dataset, transform, source)
    elif isinstance(data, ConcatDataset):
        changed.datasets = [with_transform(part, transform, source) for part in data.datasets]
    elif hasattr(data, "transform"):
        changed.transform = transform
        if getattr(data, "transforms", None) is not None:  # torchvision's joint transform of image and label
            changed.transforms = type(data.transforms)(transform, getattr(data, "target_transform", None))
    else:
        raise UserError(
            f"{source}: {type(data).__name__} has no attribute 'transform' that could be replaced; name the data for "
            "evaluation in data.eval_dataset instead"
        )
    return changed
