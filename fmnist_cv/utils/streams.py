"""Standard output that is closed, full, without a reader, or in an encoding that lacks a letter: printing never fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


@contextmanager
def lasting_output() -> Iterator[None]:
    """While it lasts, printing never fails."""
    _keep_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Lasting(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):  # what is left in them must not fail when the interpreter ends
            with suppress(ValueError):  # closed meanwhile
                stream.flush()
        sys.stdout, sys.stderr = before


class _Lasting:
    """A stream, or none, to which writing never fails."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # as long as the process

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError as error:  # the locale lacks a letter, such as "±" or one of a class's name
            return self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except OSError:
            self._lead_nowhere()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._lead_nowhere()

    def _lead_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # so that what the stream still holds goes there, too
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _keep_descriptors() -> None:
    """Open what is closed of descriptors 0 to 2: the next file would get the number, and what is printed there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
