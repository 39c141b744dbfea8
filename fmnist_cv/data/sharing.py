"""One copy of equal images per process: every fold, the evaluation and the report make a data module of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from weakref import WeakValueDictionary

from fmnist_cv.data.images import Images

LARGEST_KEPT = 2**26  # bytes of pixels; larger images are shared only while a data module still holds them

_images: WeakValueDictionary[Hashable, Images] = WeakValueDictionary()
_kept: deque[Images] = deque(maxlen=2)  # a training and a test set, from one data module to the next


def shared_images(key: Hashable, make: Callable[[], Images | None]) -> Images | None:
    """The images made earlier in this process for an equal key, or else those that `make` returns.

    Args:
        key: everything on which the images depend: the function, its arguments, and the state of files, see
            `file_states`. Equal keys must stand for equal images.
        make: reads or generates the images; None where there are none.
    """
    images = _images.get(key)
    if images is None:
        images = make()
        if images is None:
            return None
        _images[key] = images
    if images.images.nbytes <= LARGEST_KEPT and not any(images is kept for kept in _kept):
        _kept.append(images)
    return images


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
