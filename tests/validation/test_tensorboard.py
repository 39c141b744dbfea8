"""What TensorBoard finds in a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running import read_json
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from fmnist_cv import cross_validate

CURVES = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


@pytest.fixture(params=[0, 1, 2], ids="fold_{}".format)
def fold(request: pytest.FixtureRequest, standard: Path) -> Path:
    return standard / f"fold_{request.param}"


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


@pytest.mark.parametrize("tag", CURVES)
def test_curves_have_one_point_per_epoch(fold: Path, tag: str) -> None:
    points = read(fold).Scalars(tag)
    assert [point.step for point in points] == [0, 1, 2]
    expected = [metrics[tag] for metrics in read_json(fold / "metrics.json")["history"]]
    assert [point.value for point in points] == pytest.approx(expected)


def test_images_and_hyperparameters(fold: Path) -> None:
    events = read(fold)
    confusion, samples = (events.Images(tag) for tag in ("confusion_matrix/validation", "samples/training_images"))
    assert [image.step for image in confusion] == [2] and [image.step for image in samples] == [0]
    for image in (*confusion, *samples):
        assert image.encoded_image_string.startswith(b"\x89PNG")
        assert image.width > 300 and image.height > 300
    hparams = events.PluginTagToContent("hparams")
    assert "_hparams_/session_start_info" in hparams
    for part in ("validation", "test"):
        (point,) = events.Scalars(f"hp/{part}_accuracy")
        score = read_json(fold / "metrics.json")["last"][part]["accuracy"]
        assert point.value == pytest.approx(score)
    content = hparams["_hparams_/session_start_info"]
    for name in (b"model.class_path", b"optimizer.lr", b"data.batch_size", b"trainer.max_epochs", b"seed"):
        assert name in content, name


def test_folds_appear_as_runs_of_the_log_folder(standard: Path) -> None:
    runs = EventMultiplexer().AddRunsFromDirectory(str(standard.parents[1])).Reload().Runs()
    assert sorted(runs) == [f"tiny/standard/fold_{fold}" for fold in range(3)]


def test_without_a_logger_there_are_no_event_files(standard: Path, quick: dict[str, Any]) -> None:
    quick["cv"]["holdout"] = 0.3
    run = cross_validate(quick).path
    assert not list(run.rglob("events.out*")) and list(standard.rglob("events.out*"))
