"""Explains why a training step failed: the part of the experiment that raised, and the line of the user's code."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from fmnist_cv.config.fold_parts import FoldParts
from fmnist_cv.data import KFoldDataModule
from fmnist_cv.errors import UserError

_PACKAGE, _LIGHTNING = Path(__file__).parents[1], Path(L.__file__).parent
_LIBRARIES = (_PACKAGE, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")))


def explain_step(error: Exception, model: str, data: str, parts: FoldParts) -> UserError:
    """The part that failed, its error message, and the line of the user's code.

    Args:
        error: the exception.
        model, data: class paths of the parts.
        parts: the parts.
    """
    shape = parts.data.train_images.shape
    if (augmented := _augmented_shape(parts.data)) not in (shape, None):
        return UserError(
            f"data.augment turns images of shape {shape} (channels, height, width) into {augmented}, which {model} cannot "
            f"take; augmented images must be as large as the others ({text_of(error)})"
        )
    named = {id(module): f"data.augment: {type(module).__name__}" for module in parts.data.augment}
    named |= {id(parts.model): model, id(parts.data): data}
    where, line = "trainer", ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        file, owner = Path(frame.f_code.co_filename), frame.f_locals.get("self")
        if isinstance(owner, Callback) and not file.is_relative_to(_PACKAGE):
            where = f"trainer.callbacks: {type(owner).__name__}"
        elif not file.is_relative_to(_LIGHTNING):  # its hooks are methods of the module as well
            where = named.get(id(owner), where)
        if not any(file.is_relative_to(library) for library in _LIBRARIES):
            line = f" ({file}:{number})"
    return UserError(f"{where}: the first training step fails: {text_of(error)}{line}")


def _augmented_shape(data: KFoldDataModule) -> tuple[int, ...] | None:
    """(channels, height, width) of augmented images; None if the augmentation itself fails."""
    images = data.train_images.pixels(torch.arange(2))
    try:
        return tuple(data.prepare(images, training=True).shape[1:])
    except Exception:
        return None


def text_of(error: Exception) -> str:
    """The exception's type and text in one line; of Lightning's own errors the text alone."""
    text = " ".join(str(error).split())[:400].rstrip(".")
    return text if isinstance(error, MisconfigurationException) else f"{type(error).__name__}: {text}"
