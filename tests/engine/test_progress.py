"""The display of folds: lines where output is a file, live bars on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fmnist_cv.engine import progress
from fmnist_cv.engine.events import EpochEnded, Failed, FailureKind, Finished, ScoringStarted, Started, StepEnded
from fmnist_cv.engine.progress import FoldDisplay

SCORES = {"train/loss": 0.5, "train/accuracy": 0.8, "val/loss": 0.25, "val/accuracy": 0.9, "lr": 0.001}


FAILED = Failed("it [broke]", FailureKind.EXCEPTION)
FINISHED = Finished(accuracy=0.9)


def epoch(number: int) -> EpochEnded:
    return EpochEnded(number, SCORES)


def started(epoch: int = 0, max_epochs: int = 2, steps: int = 10) -> Started:
    return Started(epoch, max_epochs, steps)


def test_lines_where_output_is_no_terminal() -> None:
    file = io.StringIO()
    with FoldDisplay(["fold_0", "fold_1"], Console(file=file, width=40)) as display:
        display.handle("fold_0", started())
        display.handle("fold_0", StepEnded(epoch=0, step=5))
        display.handle("fold_0", epoch(0))
        display.handle("fold_1", started(epoch=1))
        display.handle("fold_1", epoch(1))
        display.handle("fold_0", ScoringStarted())
        display.handle("fold_0", FINISHED)
        display.handle("fold_1", FAILED)
    lines = file.getvalue().splitlines()
    assert lines[0].startswith(
        "fold_0: epoch 1/2, train loss 0.5000, accuracy 0.8000, val loss 0.2500, accuracy 0.9000, about "
    )
    assert lines[1] == "fold_1: resumes after epoch 1"
    assert lines[2].startswith("fold_1: epoch 2/2, ")
    assert lines[3:] == ["fold_0: finished, val accuracy 0.9000", "fold_1: FAILED: it [broke]"]


def test_bars_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=160, record=True)
    with FoldDisplay(["fold_0", "fold_1", "fold_2"], console) as display:
        display.handle("fold_0", started())
        display.handle("fold_1", started(epoch=1))
        for number in range(2):
            for step in range(1, 11):
                display.handle("fold_0", StepEnded(number, step))
            display.handle("fold_0", epoch(number))
        display.handle("fold_1", ScoringStarted())
        display.handle("fold_1", FINISHED)
        display.handle("fold_2", FINISHED)  # by another process, before this one looked
    text = console.export_text()
    assert "fold_0" in text and "2/2" in text and "finished, val accuracy 0.9000" in text


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("reason", ["IndexError: x[3]", "expected [b, c], got [/]", "no file [/tmp/a]"])
def test_reasons_with_brackets_are_shown_as_they_are(terminal: bool, reason: str) -> None:
    """Rich would take them for markup: drop them, or raise."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=160, record=True)
    with FoldDisplay(["fold_0"], console) as display:
        display.handle("fold_0", started())
        display.handle("fold_0", Failed(reason, FailureKind.EXCEPTION))
    assert f"FAILED: {reason}" in console.export_text()


@pytest.mark.parametrize("terminal", [False, True])
def test_training_without_a_number_of_epochs(terminal: bool) -> None:
    """With max_steps or max_time alone, Lightning's max_epochs is -1."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=160, record=True)
    with FoldDisplay(["fold_0"], console) as display:
        display.handle("fold_0", started(max_epochs=-1))
        for number in range(3):
            display.handle("fold_0", StepEnded(number, step=3))
            display.handle("fold_0", epoch(number))
        display.handle("fold_0", FINISHED)
    text = console.export_text()
    assert "finished" in text
    assert "2/1" not in text and "3/1" not in text


@pytest.mark.parametrize("terminal", [False, True])
def test_a_model_without_curves_of_its_own(terminal: bool) -> None:
    """A final model on all images has no validation scores."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=160, record=True)
    with FoldDisplay(["refit"], console) as display:
        display.handle("refit", started(max_epochs=1))
        display.handle("refit", EpochEnded(0, {"train/loss": 0.5}))
        display.handle("refit", Finished(accuracy=None))
    text = console.export_text()
    assert "refit" in text and "finished" in text and "val" not in text


def test_the_time_left_counts_what_was_done_before_a_resumption(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folds of 4 epochs, one of them resumed at 2: after one epoch in 10 s, 5 remain."""
    now = iter([100.0, 110.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now, 110.0))
    file = io.StringIO()
    with FoldDisplay(["fold_0", "fold_1"], Console(file=file)) as display:
        display.handle("fold_0", started(epoch=2, max_epochs=4))
        display.handle("fold_0", epoch(2))
    assert file.getvalue().splitlines()[-1].endswith("about 50 s left")
