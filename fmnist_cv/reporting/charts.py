"""Charts as coordinates, which the page's template draws as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from fmnist_cv.analysis.statistics import wilson_interval
from fmnist_cv.analysis.summary import Interval

BINS = 15  # as torchmetrics' calibration error in the results


@dataclass
class Chart:
    """A chart with two axes; y grows upwards in the data and downwards in the drawing.

    Attributes:
        title: above the chart.
        summary: description for screen readers.
        x, y: lowest and highest value of each axis.
        x_title, y_title: titles of the axes.
        width, height: of the drawing, in SVG units.
        left: space for the vertical axis.
        y_ticks: values and their labels; by default automatic.
        marks: SVG elements in drawing order: tag and attributes.
    """

    title: str
    summary: str
    x: tuple[float, float]
    y: tuple[float, float]
    x_title: str = ""
    y_title: str = ""
    width: float = 440
    height: float = 280
    left: float = 52
    y_ticks: list[tuple[float, str]] | None = None
    marks: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    top, right, bottom = 12.0, 12.0, 44.0

    def px(self, value: float) -> float:
        low, high = self.x
        return round(self.left + (value - low) / (high - low) * (self.width - self.left - self.right), 1)

    def py(self, value: float) -> float:
        low, high = self.y
        return round(
            self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom), 1
        )

    def ticks(self, axis: str) -> list[tuple[float, str]]:
        """(position in the drawing, label) of an axis' ticks."""
        low, high = self.x if axis == "x" else self.y
        if axis == "y" and self.y_ticks is not None:
            return [(self.py(value), text) for value, text in self.y_ticks]
        whole = axis == "x" and self.x_title == "epoch"
        values = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=whole, min_n_ticks=1).tick_values(low, high)
        inside = [v for v in values if low - 1e-9 <= v <= high + 1e-9]
        place = self.px if axis == "x" else self.py
        return [(place(v), f"{v:.10g}") for v in inside]

    def line(self, xs: Iterable[float], ys: Iterable[float], kind: str) -> None:
        points = " ".join(f"{self.px(x)},{self.py(y)}" for x, y in zip(xs, ys, strict=True))
        self.marks.append(("polyline", {"points": points, "class": f"line {kind}"}))

    def band(self, xs: Iterable[float], low: Iterable[float], high: Iterable[float], kind: str) -> None:
        there = [f"{self.px(x)},{self.py(y)}" for x, y in zip(xs, high, strict=True)]
        back = [f"{self.px(x)},{self.py(y)}" for x, y in zip(xs, low, strict=True)][::-1]
        self.marks.append(("polygon", {"points": " ".join(there + back), "class": f"band {kind}"}))

    def dot(self, x: float, y: float, kind: str, what: str = "", r: float = 4) -> None:
        self.marks.append(
            ("circle", {"cx": self.px(x), "cy": self.py(y), "r": r, "class": f"dot {kind}", "title": what})
        )

    def box(self, x: tuple[float, float], y: tuple[float, float], kind: str, what: str = "") -> None:
        left, right, top, bottom = self.px(x[0]), self.px(x[1]), self.py(y[1]), self.py(y[0])
        size = {"x": left, "y": top, "width": round(right - left, 1), "height": round(bottom - top, 1)}
        self.marks.append(("rect", {**size, "class": f"box {kind}", "title": what}))


def learning_curves(histories: list[list[dict[str, float]]], held_out: str) -> list[Chart]:
    """Loss and accuracy by epoch: each fold as a thin line, their mean as a thick line, their range as a band.

    Args:
        histories: for each fold, the metrics of each epoch.
        held_out: name of the images that val/... was measured on.
    """
    charts = []
    for metric, unit, factor in (("accuracy", "accuracy, %", 100.0), ("loss", "loss, nats per image", 1.0)):
        curves = {
            part: [[factor * epoch.get(f"{part}/{metric}", np.nan) for epoch in history] for history in histories]
            for part in ("train", "val")
        }
        values = np.array([v for folds in curves.values() for fold in folds for v in fold])
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        n_epochs = max(map(len, histories))
        margin = 0.05 * float(np.ptp(values)) or 0.05 * abs(float(values[0])) or 1.0
        chart = Chart(
            title=metric.capitalize(),
            summary="",
            x_title="epoch",
            y_title=unit,
            x=(1, n_epochs) if n_epochs > 1 else (0.5, 1.5),
            y=(float(values.min()) - margin, float(values.max()) + margin),
        )
        described = []
        for part, folds in curves.items():
            table = np.full((len(folds), n_epochs), np.nan)
            for row, fold in zip(table, folds, strict=True):
                row[: len(fold)] = fold
            table[~np.isfinite(table)] = np.nan
            known = np.flatnonzero(~np.isnan(table).all(0))
            if not len(known):
                continue
            epochs, table = known + 1, table[:, known]
            if len(table) > 1:
                chart.band(epochs, np.nanmin(table, 0), np.nanmax(table, 0), part)
                for row in table:
                    chart.line(epochs[~np.isnan(row)], row[~np.isnan(row)], f"{part} fold")
            mean = np.nanmean(table, 0)
            chart.line(epochs, mean, part)
            chart.dot(epochs[-1], mean[-1], part, r=3)
            name = "training images" if part == "train" else held_out
            described.append(
                f"{name} from {mean[0]:.3g} after epoch {epochs[0]} to {mean[-1]:.3g} after epoch {epochs[-1]}"
            )
        chart.summary = f"{metric.capitalize()} by epoch, mean of the folds: {'; '.join(described)}"
        charts.append(chart)
    return charts


def reliability(probabilities: np.ndarray, labels: np.ndarray, title: str, error: float) -> Chart:
    """Reliability diagram: accuracy by confidence in bins of equal width, with Wilson intervals and the images' counts.

    Args:
        probabilities: float (n, n_classes).
        labels: int64 (n,).
        title: above the chart.
        error: expected calibration error, 0 to 1.
    """
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    chart = Chart(
        title=title,
        summary=f"{title}: expected calibration error {100 * error:.1f} points",
        x=(0, 100),
        y=(0, 100),
        x_title="confidence, %",
        y_title="accuracy, %",
        width=380,
        height=330,
    )
    # bins as torchmetrics has them: open to the left
    place = np.clip(np.ceil(confidence.astype(np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    for b, n in enumerate(counts.tolist()):
        if n:
            share = f"{n:,} images, {100 * n / len(labels):.1f} %"
            chart.box((100 * b / BINS, 100 * (b + 1) / BINS), (0, 22 * n / counts.max()), "count", share)
    chart.line((0, 100), (0, 100), "ideal")
    points = []
    for b in np.flatnonzero(counts).tolist():
        here = place == b
        x, y = 100 * float(confidence[here].mean()), 100 * float(correct[here].mean())
        low, high = wilson_interval(int(correct[here].sum()), int(counts[b]))
        chart.line((x, x), (100 * low, 100 * high), "whisker")
        points.append((x, y, f"confidence {x:.1f} %, accuracy {y:.1f} % of {counts[b]:,} images"))
    chart.line([x for x, _, _ in points], [y for _, y, _ in points], "val")
    for x, y, what in points:
        chart.dot(x, y, "val", what)
    return chart


def fold_spread(
    names: Sequence[str],
    accuracies: Sequence[float],
    intervals: Sequence[Interval],
    mean_interval: tuple[float, float, float] | None,
) -> Chart:
    """Each fold's accuracy with its interval, one below the other, and the interval of the mean as a band.

    Args:
        names, accuracies: of each fold.
        intervals: Wilson's of each fold.
        mean_interval: low, mean and high of the folds' mean, if it has an interval.
    """
    bounds = [100 * bound for pair in (*intervals, mean_interval or ()) for bound in pair]
    margin = 0.04 * (max(bounds) - min(bounds)) or 1.0
    n, folds = len(names), list(zip(names, accuracies, strict=True))
    chart = Chart(
        title="Validation accuracy",
        summary="Validation accuracy by fold: "
        + ", ".join(f"{name} {100 * accuracy:.2f} %" for name, accuracy in folds),
        x=(min(bounds) - margin, max(bounds) + margin),
        y=(n - 0.4, -0.6),
        x_title="accuracy, %",
        height=56 + 24 * max(n, 3),
        left=14 + 7.5 * max(map(len, names)),
        y_ticks=list(enumerate(names)),
    )
    if mean_interval:
        low, mean, high = (100 * value for value in mean_interval)
        chart.box(
            (low, high),
            (n - 0.4, -0.6),
            "interval",
            f"corrected 95 % confidence interval of the mean {low:.2f} to {high:.2f}",
        )
        chart.line((mean, mean), (n - 0.4, -0.6), "mean")
    for i, ((name, accuracy), (low, high)) in enumerate(zip(folds, intervals, strict=True)):
        chart.line((100 * low, 100 * high), (i, i), "whisker")
        what = f"{name}: {100 * accuracy:.2f} %, 95 % confidence interval {100 * low:.2f} to {100 * high:.2f}"
        chart.dot(100 * accuracy, i, "val", what)
    return chart
