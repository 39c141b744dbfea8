"""Imports of torch, Lightning and what needs them, which take most of the time of a short command."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """For the imports in its block: no garbage collection, which would take a fifth of their time and find nothing.

    What modules make lasts as long as the process, so that it is never searched for garbage later either. For processes that
    are the package's own: in another, all that it has made by then would be kept as well.
    """
    if "lightning" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
