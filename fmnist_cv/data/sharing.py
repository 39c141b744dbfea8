"""Images that data modules of one process copy from each other instead of reading or generating them again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fmnist_cv.data.images import Images

LARGEST_KEPT = 2**26  # bytes of pixels; larger images are read again

_kept: deque[tuple[Hashable, Images]] = deque(maxlen=2)  # a training and a test set


def shared_images(key: Hashable, make: Callable[[], Images | None]) -> Images | None:
    """The images made last in this process for an equal key, or else those that `make` returns.

    Each caller gets tensors of its own: a user-defined data module may change them in place.

    Args:
        key: everything on which the images depend: the function, its arguments, and the state of files, see
            `file_states`. Equal keys must stand for equal images.
        make: reads or generates the images; None where there are none.
    """
    images = next((images for kept, images in _kept if kept == key), None)
    if images is not None:
        return _copy(images)
    images = make()
    if images is not None and images.images.nbytes <= LARGEST_KEPT:
        _kept.append((key, _copy(images)))
    return images


def _copy(images: Images) -> Images:
    tensors: dict[str, Any] = {key: value.clone() for key, value in vars(images).items() if isinstance(value, Tensor)}
    return replace(images, **tensors)


def file_states(paths: Iterable[Path]) -> tuple[tuple[str, int, int, int], ...]:
    """Path, inode, size in bytes and time of the last change in ns of each file that exists: part of a key."""
    states = []
    for path in paths:
        try:
            state = path.stat()
        except OSError:
            continue
        states.append((str(path.absolute()), state.st_ino, state.st_size, state.st_mtime_ns))
    return tuple(states)
