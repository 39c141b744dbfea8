"""User errors: one clear message, exit status 2, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A request that cannot be fulfilled; the message names the thing, the reason and the way out."""


class CannotWrite(UserError):
    """The disk is full, read-only or gone; the configuration is not at fault."""


class DataNotFound(UserError):
    """The data set is neither on disk nor downloadable."""


class NonFinite(Exception):
    """A model diverged: its loss or its predictions became NaN or infinite."""


def did_you_mean(word: str, known: Iterable[str], then: str = "") -> str:
    """`"; did you mean 'batch_size'?"` for the nearest of the known words, or an empty string.

    Args:
        word: the word given.
        known: the words that are allowed.
        then: how the sentence continues, e.g. "give one of a, b"; after the question it is a sentence of its own.
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?" + (f" {then[0].upper()}{then[1:]}" if then else "")
    return f"; {then}" if then else ""
