"""What the charts draw, in coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from fmnist_cv.reporting.charts import Chart, fold_spread, learning_curves, reliability


def marks(chart: Chart, kind: str) -> list[dict[str, object]]:
    return [attributes for _, attributes in chart.marks if attributes["class"] == kind]


def test_values_go_where_their_ticks_are() -> None:
    chart = Chart("", "", x=(0, 10), y=(0, 1), width=164, height=156, left=52)
    assert (chart.px(0), chart.px(10), chart.py(0), chart.py(1)) == (52, 152, 112, 12)
    assert dict(chart.ticks("x"))[chart.px(4)] == "4" and dict(chart.ticks("y"))[chart.py(0.4)] == "0.4"


def test_curves_show_each_fold_their_mean_and_band_though_one_stopped_early() -> None:
    long = [{"train/loss": 1.0, "val/loss": loss, "val/accuracy": 0.5} for loss in (3.0, 2.0, 1.0)]
    accuracy, loss = learning_curves([long, [{**long[0], "val/loss": 5.0}]], "held-out fold")
    assert len(marks(loss, "line val fold")) == 2 and len(marks(loss, "band val")) == 1
    (mean,) = marks(loss, "line val")
    assert mean["points"] == " ".join(f"{loss.px(e)},{loss.py(v)}" for e, v in ((1, 4), (2, 2), (3, 1)))
    assert "held-out fold from 4 after epoch 1 to 1 after epoch 3" in loss.summary
    assert not marks(accuracy, "line train") and marks(accuracy, "line val")
    assert [text for _, text in loss.ticks("x")] == ["1", "2", "3"]


def test_one_epoch_of_one_fold_is_a_dot_and_what_is_not_finite_is_left_out() -> None:
    (loss,) = learning_curves([[{"train/loss": float("nan"), "val/loss": 0.5}]], "held-out fold")
    assert marks(loss, "dot val") and not marks(loss, "dot train") and not marks(loss, "band val")
    assert [text for _, text in loss.ticks("x")] == ["1"]
    assert learning_curves([[{"lr": 0.1}]], "held-out fold") == []


def test_reliability_bins_are_those_of_the_calibration_error() -> None:
    """A confidence on a bin's upper edge belongs to it."""
    confidence = np.array([0.6, 0.6, 0.61, 1.0])
    labels = np.array([0, 1, 0, 0])
    chart = reliability(np.stack([confidence, 1 - confidence], 1), labels, "Out of fold", 0.12)
    told = [dot["title"] for dot in marks(chart, "dot val")]
    assert told == [
        "confidence 60.0 %, accuracy 50.0 % of 2 images",
        "confidence 61.0 %, accuracy 100.0 % of 1 images",
        "confidence 100.0 %, accuracy 100.0 % of 1 images",
    ]
    assert len(marks(chart, "line whisker")) == len(marks(chart, "box count")) == 3


@pytest.mark.parametrize("n", [1, 7])
def test_folds_stand_under_each_other_with_their_intervals(n: int) -> None:
    names, accuracies = [f"fold_{i}" for i in range(n)], [0.9 + i / 100 for i in range(n)]
    intervals = [(accuracy - 0.02, accuracy + 0.02) for accuracy in accuracies]
    chart = fold_spread(names, accuracies, intervals, (0.89, 0.93, 0.97) if n > 1 else None)
    dots = marks(chart, "dot val")
    assert [dot["cy"] for dot in dots] == sorted(dot["cy"] for dot in dots)
    assert [text for _, text in chart.ticks("y")] == names
    assert len(marks(chart, "box interval")) == (n > 1)
