"""How long the folds of a run trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from fmnist_cv.analysis.summary import Times
from fmnist_cv.engine.run_records import FoldMetrics


def summarise_times(folds: Sequence[FoldMetrics]) -> Times:
    """Times of the folds, from their metrics."""
    per_fold = [fold["times"]["train_intervals"] for fold in folds]
    train_seconds = shared_seconds(per_fold)
    images = sum(interval[2] for intervals in per_fold for interval in intervals)
    return {
        "fold_wall_seconds": [fold["times"]["wall_seconds"] for fold in folds],
        "train_seconds": train_seconds,
        "images_trained": images,
        "images_per_second": images / train_seconds if train_seconds else None,
        "peak_memory_mb": max(fold["times"]["peak_memory_mb"] for fold in folds),
    }


def shared_seconds(per_fold: Sequence[Sequence[Sequence[Any]]]) -> float:
    """Wall time spent on training by folds that run concurrently, summed over the clocks that measured it.

    Times of different clocks (of another machine, or of the same one after a reboot) cannot be compared: such folds count
    as sequential. Each moment is divided equally among the folds that run in it, and the shares of those that are training
    are added up: where one fold trains while another is scored, half of that moment counts. For sequential folds this is
    the sum of their training times.

    Args:
        per_fold: for each fold (began, ended, images, clock) of each epoch's training, seconds; the clock may be missing.
    """
    by_clock: dict[str, list[list[tuple[float, float]]]] = {}
    for intervals in per_fold:
        own: dict[str, list[tuple[float, float]]] = {}
        for began, ended, _, *clock in intervals:
            own.setdefault("".join(clock), []).append((began, ended))
        for name, epochs in own.items():
            by_clock.setdefault(name, []).append(epochs)
    return sum(map(_shared_seconds_of_one_clock, by_clock.values()))


def _shared_seconds_of_one_clock(per_fold: list[list[tuple[float, float]]]) -> float:
    spans = [(epochs[0][0], epochs[-1][1]) for epochs in per_fold]
    trains = [epoch for epochs in per_fold for epoch in epochs]
    moments = sorted({moment for began, ended in (*spans, *trains) for moment in (began, ended)})
    seconds = 0.0
    for began, ended in pairwise(moments):
        running = sum(b <= began and ended <= e for b, e in spans)
        training = sum(b <= began and ended <= e for b, e in trains)
        seconds += (ended - began) * training / max(1, running)
    return seconds
