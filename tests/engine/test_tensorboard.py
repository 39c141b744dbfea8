"""What TensorBoard finds in a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running import read_json
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer as PluginEventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.api_pb2 import (
    AggregationType,
    GetExperimentRequest,
    ListSessionGroupsRequest,
    Status,
)
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.get_experiment import Handler as ExperimentHandler
from tensorboard.plugins.hparams.list_session_groups import Handler as ListHandler
from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

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
    for tag, part in (("hp/held_out_accuracy", "validation"), ("hp/test_accuracy", "test")):
        (point,) = events.Scalars(tag)
        score = read_json(fold / "metrics.json")["last"][part]["accuracy"]
        assert point.value == pytest.approx(score)
    session = parse_session_start_info_plugin_data(hparams["_hparams_/session_start_info"])
    assert session.hparams["model.class_path"].string_value == "DenseNetwork"
    assert session.hparams["data.batch_size"].number_value == 32
    for name in ("model.optimizer.lr", "trainer.max_epochs", "seed", "cv.n_splits"):
        assert name in session.hparams, name


def rows(folder: Path) -> dict[str, tuple[set[str], dict[str, float]]]:
    """What the HParams page lists, by its own code: of each row its hyperparameters, and metrics by name."""
    multiplexer = PluginEventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    backend = Context(TBContext(logdir=str(folder), multiplexer=multiplexer, data_provider=provider))
    experiment = ExperimentHandler(RequestContext(), backend, "", GetExperimentRequest()).run()
    asked = ListSessionGroupsRequest(
        allowed_statuses=[Status.STATUS_SUCCESS], slice_size=100, aggregation_type=AggregationType.AGGREGATION_AVG
    )
    for column in experiment.metric_infos:
        asked.col_params.add(metric=column.name)
    for column in experiment.hparam_infos:
        asked.col_params.add(hparam=column.name)
    listed = ListHandler(RequestContext(), backend, "", asked).run()
    return {
        group.name: (set(group.hparams), {value.name.tag: value.value for value in group.metric_values})
        for group in listed.session_groups
    }


def test_in_hparams_a_run_is_a_row_with_the_mean_of_its_folds(standard: Path) -> None:
    ((name, (hyperparameters, metrics)),) = rows(standard.parents[1]).items()
    assert name == "tiny/standard" and "model.dropout" in hyperparameters
    accuracy = read_json(standard / "results.json")["headline"]["accuracy"]["mean"]
    assert metrics["hp/held_out_accuracy"] == pytest.approx(accuracy)


def test_in_hparams_runs_of_different_networks_keep_their_own_hyperparameters(tiny: dict[str, Any]) -> None:
    tiny["cv"] = {"n_splits": 3, "workers": 1, "inner_holdout": 0.2}
    cross_validate(tiny, run="dense")
    tiny["model"] = {"class_path": "fmnist_cv.models.BatchNormCNN", "init_args": {}}
    tiny["cv"]["holdout"], tiny["trainer"]["max_epochs"] = 0.5, 1
    run = cross_validate(tiny, run="cnn")
    found = rows(run.path.parents[1])
    assert set(found) == {"tiny/dense", "tiny/cnn"}
    assert "model.hidden.0" in found["tiny/dense"][0] and "model.hidden.0" not in found["tiny/cnn"][0]
    dense = read_json(run.path.parent / "dense" / "results.json")["headline"]
    assert dense["epoch"] == "best"  # the inner hold-out chose it
    assert found["tiny/dense"][1]["hp/held_out_accuracy"] == pytest.approx(dense["accuracy"]["mean"])


def test_folds_appear_as_runs_of_the_log_folder(standard: Path) -> None:
    runs = EventMultiplexer().AddRunsFromDirectory(str(standard.parents[1])).Reload().Runs()
    assert sorted(runs) == [f"tiny/standard/fold_{fold}" for fold in range(3)]


def test_without_a_logger_there_are_no_event_files(standard: Path, quick: dict[str, Any]) -> None:
    quick["cv"]["holdout"] = 0.3
    run = cross_validate(quick).path
    assert not list(run.rglob("events.out*")) and list(standard.rglob("events.out*"))
