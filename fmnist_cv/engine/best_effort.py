"""What adorns results never stands between them and the user: an error in it is told in one line, and that is all."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.loggers import Logger
from rich.console import Console

from fmnist_cv.utils.user_text import print_line

Tell = Callable[[str], None]

CALLED_BY_LIGHTNING = ("log_metrics", "log_hyperparams", "log_graph", "after_save_checkpoint", "save", "finalize")


@contextmanager
def decoration(what: str, tell: Tell) -> Iterator[None]:
    """Try to make `what`; any error is told, and work goes on without it."""
    try:
        yield
    except Exception as error:
        tell(f"{what} could not be made: {_reason(error)}")


def teller(console: Console | None) -> Tell:
    """Tells on the console, or, where there is none, in a warning."""
    if console is None:
        return lambda text: warnings.warn(text, stacklevel=4)
    return lambda text: print_line(console, text, style="yellow")


def forgiving(loggers: Iterable[Logger], tell: Tell) -> list[Logger]:
    """The loggers that start, changed so that a call of theirs which fails is told once and not repeated."""
    started = []
    for logger in loggers:
        with decoration(f"the log of {type(logger).__name__}", tell):
            getattr(logger, "experiment", None)  # Lightning would start it here, in the middle of its own
            for name in CALLED_BY_LIGHTNING:
                setattr(logger, name, _told_once(logger, name, tell))
            started.append(logger)
    return started


def _told_once(logger: Logger, name: str, tell: Tell) -> Callable[..., Any]:
    method, works = getattr(logger, name), True

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal works
        if not works:
            return None
        try:
            return method(*arguments, **options)
        except Exception as error:
            works = False
            tell(f"{type(logger).__name__}.{name} failed, and is left out from here on: {_reason(error)}")

    return call


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
