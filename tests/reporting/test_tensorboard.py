"""What TensorBoard is given on request of a finished run."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.util.tensor_util import make_ndarray
from torch import Tensor, nn

from fmnist_cv import CrossValidationResult, cross_validate
from fmnist_cv.data.synthetic_images import CLASS_NAMES
from fmnist_cv.errors import DataNotFound, UserError
from fmnist_cv.reporting.tensorboard import SPRITE, _sprites, embed, write_tensorboard
from fmnist_cv.runtime import prepare_process


def experiment(folder: Path) -> dict[str, Any]:
    return {
        "name": "small",
        "log_dir": str(folder),
        "cv": {"n_splits": 2, "n_repeats": 2, "workers": 1},
        "model": {"class_path": "fmnist_cv.models.DenseNetwork", "init_args": {"hidden": [32, 16], "dropout": 0.2}},
        "data": {
            "class_path": "fmnist_cv.data.SyntheticDataModule",
            "init_args": {"n_train": 300, "n_test": 100, "batch_size": 32, "scaling": "standardise"},
        },
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "precision": "32-true", "logger": False},
    }


@pytest.fixture(scope="module")
def finished(once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The folder of a finished run, one for all test processes; to be read only."""

    def fill(folder: Path) -> None:
        prepare_process(threads=1)
        cross_validate(experiment(folder), run="run")

    return once("for_tensorboard", fill) / "small" / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to write into."""
    return Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))


def projector(folder: Path) -> tuple[str, np.ndarray, list[list[str]], Image.Image]:
    """(name, vectors, rows of metadata with their header, sheet of sprites), as the projector finds them."""
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    rows = [line.split("\t") for line in (folder / embedding.metadata_path).read_text().splitlines()]
    sheet = Image.open(folder / embedding.sprite.image_path)
    return embedding.tensor_name, np.loadtxt(folder / embedding.tensor_path), rows, sheet


def last_layer(result: CrossValidationResult) -> nn.Linear:
    state = torch.load(result.path / result.summary["best_fold"]["checkpoint"], weights_only=True)["state_dict"]
    weight, bias = list(state.values())[-2:]
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def test_confusion_matrices_and_precision_recall_curves(run: Path) -> None:
    result = CrossValidationResult.load(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert write_tensorboard(result) == run / "tensorboard"
    assert {path: path.read_bytes() for path in before} == before
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0, "images": 0}).Reload()
    assert set(events.Tags()["images"]) == {"confusion_matrix/out_of_fold", "confusion_matrix/test"}
    curves = {name: f"precision_recall_out_of_fold/{name}" for name in CLASS_NAMES}
    assert set(curves.values()) <= set(events.Tags()["tensors"])
    for i, (name, tag) in enumerate(curves.items()):
        assert events.SummaryMetadata(tag).plugin_data.plugin_name == "pr_curves"
        right, wrong, _, missed, precision, recall = make_ndarray(events.Tensors(tag)[0].tensor_proto)
        of_class = result.out_of_fold()[..., i]
        truth = np.tile(result.labels == i, (2, 1))
        assert (right + missed == 2 * (result.labels == i).sum()).all(), name  # each image once per repeat
        middle = 63  # of 127 thresholds from 0 to 1
        assert right[middle] == (of_class[truth] >= middle / 126).sum()
        assert wrong[middle] == (of_class[~truth] >= middle / 126).sum()
        assert recall[0] == 1 and precision[0] == pytest.approx(truth.mean())


def test_the_projector_shows_what_the_last_layer_is_given(run: Path) -> None:
    result = CrossValidationResult.load(run)
    name, vectors, (header, *rows), sheet = projector(write_tensorboard(result))
    best = result.summary["best_fold"]["name"]
    assert name == f"{best}, input of layers.7:00000"
    assert header == ["label", "predicted out of fold", "correct or misclassified", "training image"]
    assert vectors.shape == (150, 16) and len(rows) == 150  # the fold holds out 150 images
    split = result.splits[[fold.name for fold in result.folds].index(best)]
    indices = np.array([int(row[3]) for row in rows])
    assert (indices == split.validation).all()
    probabilities = result.out_of_fold()[split.repeat, indices]
    with torch.inference_mode():
        made = last_layer(result)(torch.from_numpy(vectors).float()).softmax(1)
    assert torch.allclose(made, torch.from_numpy(probabilities), atol=1e-4)
    for row, index, predicted in zip(rows, indices, probabilities.argmax(1), strict=True):
        label = result.labels[index]
        assert row[:3] == [
            CLASS_NAMES[label],
            CLASS_NAMES[predicted],
            "correct" if label == predicted else "misclassified",
        ]
    assert sheet.size == (13 * 28, 13 * 28)  # 150 images in 13 rows of 13
    second = np.asarray(sheet)[:28, 28:56, 0]
    assert np.abs(second - result.data.train_images.images[indices[1], 0].numpy().astype(int)).max() <= 1


def test_a_sample_is_drawn_by_the_seed(finished: Path) -> None:
    result = CrossValidationResult.load(finished)
    first, again = (embed(result, n_images=40) for _ in range(2))
    assert len(set(first.indices)) == len(first.vectors) == len(first.images) == 40
    assert (first.indices == again.indices).all() and (first.vectors == again.vectors).all()


def test_many_columns_become_principal_components(run: Path, tmp_path: Path) -> None:
    config = experiment(tmp_path) | {"model": {"class_path": "fmnist_cv.models.LinearClassifier"}}
    config["cv"], config["trainer"]["max_epochs"] = {"holdout": 0.8, "workers": 1}, 1
    made = embed(cross_validate(config))
    assert made.what == "fold_0, input of layers.1, 200 principal components" and made.vectors.shape == (240, 200)


def test_a_second_time_replaces_the_first(run: Path) -> None:
    result = CrossValidationResult.load(run)
    left = write_tensorboard(result) / "left.over"
    left.touch()
    write_tensorboard(result)
    assert not left.exists() and not list(run.glob(".tensorboard-*"))
    assert len(list((run / "tensorboard").glob("events*"))) == 1


class GatesItsFeatures(L.LightningModule):
    """Its last linear layer gives a weight, not the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.convolution = nn.Linear(784, 3), nn.Conv2d(1, 10, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution(images).mean((2, 3)) * self.gate(images.flatten(1)).sum(1, keepdim=True).sigmoid()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


def test_a_network_that_does_not_end_in_a_linear_layer_is_shown_by_its_log_probabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(sys)("networks_for_the_projector")
    module.GatesItsFeatures = GatesItsFeatures  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    config = experiment(tmp_path) | {"model": {"class_path": f"{module.__name__}.GatesItsFeatures"}}
    config["cv"], config["trainer"]["max_epochs"] = {"holdout": 0.5, "workers": 1}, 1
    result = cross_validate(config)
    made = embed(result)
    assert made.what == "fold_0, log-probabilities"
    assert np.allclose(np.exp(made.vectors), result.out_of_fold()[0, made.indices], atol=1e-4)


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 20, 31), (3, 40, 12), (1, 200, 150)])
def test_sprites_are_squares_of_a_size_that_fits(channels: int, height: int, width: int) -> None:
    images = torch.randint(0, 256, (3, channels, height, width), dtype=torch.uint8)
    sprites = _sprites(images)
    side = min(SPRITE, max(height, width))
    assert sprites.shape == (3, channels, side, side)
    assert sprites.min() >= 0 and sprites.max() <= 1
    if side == max(height, width):
        assert torch.equal(sprites[..., :height, :width], images.float() / 255)


def test_without_its_images_or_its_checkpoint_nothing_is_written(run: Path) -> None:
    result = CrossValidationResult.load(run)
    checkpoint = run / result.summary["best_fold"]["checkpoint"]
    checkpoint.unlink()
    with pytest.raises(UserError, match=r"last.ckpt is missing"):
        write_tensorboard(result)
    config = (run / "config.yaml").read_text()
    start = config.index("data:\n")
    other = "data:\n  class_path: fmnist_cv.data.FashionMNISTDataModule\n  init_args:\n    root: nowhere\n    download: false\n"
    end = config.index("\ntrainer:", start)
    (run / "config.yaml").write_text(config[:start] + other + config[end:])
    with pytest.raises(UserError, match=r"data.class_path is .*FashionMNISTDataModule', but the run was started with"):
        write_tensorboard(CrossValidationResult.load(run))
    info = json.loads((run / "run.json").read_text())
    del info["settings"], info["digest"]  # as in a run of an older version
    (run / "run.json").write_text(json.dumps(info))
    with pytest.raises(DataNotFound):
        write_tensorboard(CrossValidationResult.load(run))
    assert not (run / "tensorboard").exists() and not list(run.glob(".tensorboard-*"))
