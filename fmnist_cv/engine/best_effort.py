"""Optional outputs (figures, loggers, links): an error in one becomes a warning, and the run continues without it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.loggers import Logger
from rich.console import Console

from fmnist_cv.utils.user_text import print_line

Warn = Callable[[str], None]

CALLED_BY_LIGHTNING = ("log_metrics", "log_hyperparams", "log_graph", "after_save_checkpoint", "save", "finalize")


@contextmanager
def best_effort(what: str, warn: Warn) -> Iterator[None]:
    """Try to make `what`; any error is passed to `warn`, and execution continues after the block."""
    try:
        yield
    except Exception as error:
        warn(f"{what} could not be made: {_reason(error)}")


def warn_on(console: Console | None) -> Warn:
    """A function that prints a warning on the console or, without one, issues it with `warnings.warn`."""
    if console is None:
        return lambda text: warnings.warn(text, stacklevel=4)
    return lambda text: print_line(console, text, style="yellow")


def guarded_loggers(loggers: Iterable[Logger], warn: Warn) -> list[Logger]:
    """The loggers that start, changed so that a method that fails is reported once and then disabled."""
    started = []
    for logger in loggers:
        with best_effort(f"the log of {type(logger).__name__}", warn):
            getattr(logger, "experiment", None)  # Lightning would start it here, in the middle of its own work
            for name in CALLED_BY_LIGHTNING:
                setattr(logger, name, _disabled_after_error(logger, name, warn))
            started.append(logger)
    return started


def _disabled_after_error(logger: Logger, name: str, warn: Warn) -> Callable[..., Any]:
    method, works = getattr(logger, name), True

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal works
        if not works:
            return None
        try:
            return method(*arguments, **options)
        except Exception as error:
            works = False
            warn(f"{type(logger).__name__}.{name} failed and is disabled for the rest of the fold: {_reason(error)}")

    return call


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
