"""The progress of a search, on a terminal and in a log."""

from __future__ import annotations

import io
import time

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from fmnist_cv.engine.events import EpochEnded, Finished, Started
from fmnist_cv.search.display import SearchDisplay
from fmnist_cv.search.records import DIVERGED, FAILED, PRUNED, RUN


def trial(number: int, *scores: float, **attributes: str | None) -> FrozenTrial:
    state = TrialState.COMPLETE if scores else TrialState.FAIL
    made = optuna.create_trial(
        state=state,
        value=sum(scores) / len(scores) if scores else None,
        user_attrs={RUN: f"trial_{number:04}", **attributes},
        intermediate_values=dict(enumerate(scores)),
    )
    made.number = number
    return made


def shown(terminal: bool) -> str:
    """Of four trials one is already completed, one is fully evaluated, one is pruned, one fails."""
    console = Console(file=io.StringIO(), width=200, force_terminal=terminal, no_color=True)
    full, pruned = trial(1, 0.8, 0.84, **{PRUNED: None}), trial(2, 0.3, **{PRUNED: "after folds"})
    before, failed = trial(0, 0.5, 0.6, **{PRUNED: None}), trial(3, **{FAILED: "its process died"})
    nan = trial(4, 0.0, **{DIVERGED: "the loss became nan"})
    with SearchDisplay(4, [before], console) as display:
        for number, trials in (
            (1, [before, full]),
            (2, [before, full, pruned]),
            (3, [before, full, pruned, failed]),
            (4, [before, full, pruned, failed, nan]),
        ):
            display.trial_started(number, n_folds=2, n_done=0)
            display.fold_event(number, 0, Started(epoch=0, max_epochs=2, steps=1))
            display.fold_event(number, 0, EpochEnded(0, {"val/accuracy": 0.75}))
            display.fold_event(number, 0, Finished(accuracy=0.75))
            if terminal:
                time.sleep(0.15)  # until the bars are drawn again
            display.trial_ended(number, trials)
        display.waiting(["process 7 on far"])
        display.waiting(["process 7 on far"])
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_log_has_a_line_per_fold_and_trial() -> None:
    lines = shown(terminal=False).splitlines()
    folds = [line for line in lines if ": fold " in line]
    assert [line[: line.index(",")] for line in folds] == [f"trial {n}: fold 1 of 2" for n in (1, 2, 3, 4)]
    assert folds[0].startswith("trial 1: fold 1 of 2, 0.7500, about ")
    lines = [line for line in lines if line not in folds]
    assert lines[0].startswith("1 of 4 trials are already completed, best 0.5500 ± 0.0707 (trial 0)")
    assert lines[1].startswith("trial 1: 0.8200, 2 folds; 2 of 4 completed, 0 of them pruned, 0 running, best 0.8200")
    assert lines[2].startswith("trial 2: 0.3000, pruned after folds; 3 of 4 completed, 1 of them pruned")
    assert lines[3].startswith("trial 3: FAILED: its process died; 3 of 4 completed") and "1 failed" in lines[3]
    assert lines[4].startswith("trial 4: DIVERGED: the loss became nan; 4 of 4 completed") and "1 diverged" in lines[4]
    assert lines[5:] == ["no trial is left to start; waiting for process 7 on far"]


def test_a_terminal_shows_bars_with_the_same_content() -> None:
    text = shown(terminal=True)
    assert "trials" in text and "fold 1/2, epoch 1, accuracy 0.7500" in text
    assert "trial 2: 0.3000, pruned after folds" in text and "min left" not in text.splitlines()[0]
