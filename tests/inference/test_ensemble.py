"""A run's networks are rebuilt as they were scored, from files that are never trusted with more than tensors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fmnist_cv import CrossValidationResult, SyntheticDataModule
from fmnist_cv.data import KFoldDataModule
from fmnist_cv.data.batches import Scaling
from fmnist_cv.engine.run_folder import FoldFolder
from fmnist_cv.errors import UserError
from fmnist_cv.inference.ensemble import (
    Ensemble,
    Predictions,
    TrainedNetwork,
    checkpoints,
    load_ensemble,
    preparation_of,
)
from fmnist_cv.models import DenseNetwork


def test_the_networks_give_the_probabilities_that_the_run_wrote(run: Path) -> None:
    result = CrossValidationResult.load(run)
    images, written = result.data.test_images.images, result.test_probabilities()
    assert written is not None
    found = load_ensemble(run).predict(images)
    assert found.probabilities.dtype == np.float32
    assert found.probabilities == pytest.approx(written, abs=1e-5)
    best = [fold["name"] for fold in result.summary["folds"]].index(result.summary["best_fold"]["name"])
    assert load_ensemble(run, "best").predict(images).probabilities == pytest.approx(written[[best]], abs=1e-5)
    refit = FoldFolder(run / "refit").read_probabilities()["last_test"]
    assert load_ensemble(run, "refit").predict(images).probabilities == pytest.approx(refit[None], abs=1e-5)


def test_batches_do_not_change_predictions(run: Path) -> None:
    ensemble = load_ensemble(run)
    images = torch.randint(256, (7, 1, 28, 28), dtype=torch.uint8)
    object.__setattr__(ensemble, "batch_size", 3)
    together = ensemble.predict(images).probabilities
    alone = [ensemble.predict(image[None]).probabilities for image in images]
    assert together == pytest.approx(np.concatenate(alone, axis=1), abs=1e-6)
    assert ensemble.predict(images[:, 0].numpy()).probabilities == pytest.approx(together, abs=1e-6)


def test_a_run_whose_headline_is_the_best_epoch_predicts_with_it(run: Path) -> None:
    result = CrossValidationResult.load(run)
    assert {path.name for _, path in checkpoints(result, "ensemble")} == {"last.ckpt"}
    result.summary["headline"]["epoch"] = "best"
    assert {path.name for _, path in checkpoints(result, "ensemble")} == {"best.ckpt"}
    assert [path.name for _, path in checkpoints(result, "refit")] == ["last.ckpt"]


def test_no_training_image_is_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: SyntheticDataModule, train: bool) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(SyntheticDataModule, "load", load)
    ensemble = load_ensemble(run)
    assert ensemble.class_names[:2] == ("T-shirt/top", "Trouser") and ensemble.image_shape == (1, 28, 28)
    assert len(ensemble.predict(np.zeros((2, 28, 28), np.uint8)).labels) == 2


def test_images_that_the_networks_do_not_take_are_refused(run: Path) -> None:
    ensemble = load_ensemble(run)
    with pytest.raises(UserError, match=r"shape \(3, 32, 32\), but the models take \(1, 28, 28\)"):
        ensemble.predict(np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(UserError, match="images must be uint8"):
        ensemble.predict(np.zeros((2, 28, 28), np.float32))


# -- what networks return -----------------------------------------------------------------------------------


class Returns(nn.Module):
    """A linear network's logits, log-probabilities or probabilities."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.layer, self.what = nn.Linear(4, 3), what

    def forward(self, images: Tensor) -> Tensor:
        logits = self.layer(images.flatten(1))
        return {"logits": logits, "log": logits.log_softmax(1), "probabilities": logits.softmax(1)}[self.what]


@pytest.mark.parametrize("what", ["logits", "log", "probabilities"])
def test_probabilities_come_out_whatever_a_network_returns(what: str) -> None:
    network, images = Returns(what), torch.randint(256, (5, 1, 2, 2), dtype=torch.uint8)
    scale = Scaling((10.0,), (255.0,))
    found = TrainedNetwork("fold_0", network, scale, (1, 2, 2))(images)
    assert torch.allclose(found, network.layer(scale(images).flatten(1)).softmax(1))


def test_logits_that_happen_to_look_like_probabilities_are_none() -> None:
    network = Returns("logits")
    with torch.no_grad():
        network.layer.weight.copy_(torch.randn(3, 4))
        network.layer.bias.copy_(torch.tensor([0.2, 0.3, 0.5]))
    found = TrainedNetwork("fold_0", network, Scaling((0.0,), (255.0,)), (1, 2, 2))(
        torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    )
    assert torch.allclose(found, torch.tensor([[0.2, 0.3, 0.5]]).softmax(1))


def test_a_data_module_that_scales_in_its_own_way_does_so_here() -> None:
    class Negated(SyntheticDataModule):
        def scale(self, images: Tensor) -> Tensor:
            return 1 - images / 255

    assert preparation_of(Negated())(torch.tensor([255])) == 0
    plain: KFoldDataModule = SyntheticDataModule()
    plain.scaling = Scaling((0.0,), (255.0,))
    assert isinstance(preparation_of(plain), Scaling)


def test_votes_by_hand() -> None:
    two = np.array([[[0.6, 0.4], [0.1, 0.9]], [[0.5, 0.5], [0.8, 0.2]], [[0.3, 0.7], [0.3, 0.7]]], np.float32)
    votes = Predictions(two, ("cat", "dog"))
    assert votes.labels.tolist() == [1, 1]
    assert votes.agreement is not None and votes.agreement.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert votes.table.round(4).to_dict("list") == {
        "label": ["dog", "dog"],
        "probability": [0.5333, 0.6],
        "agreement": [0.3333, 0.6667],
        "p(cat)": [0.4667, 0.4],
        "p(dog)": [0.5333, 0.6],
    }
    assert Predictions(two[:1], ("cat", "dog")).agreement is None


# -- what cannot be loaded ----------------------------------------------------------------------------------


class Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_an_object_in_a_checkpoint_is_never_unpickled(own_run: Path, tmp_path: Path) -> None:
    path, made = own_run / "fold_1" / "last.ckpt", tmp_path / "made"
    checkpoint = torch.load(path, weights_only=True)
    torch.save({**checkpoint, "extra": Malicious(made)}, path)
    with pytest.raises(UserError, match=r"fold_1/last.ckpt .*contains more than tensors and plain values"):
        load_ensemble(own_run)
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists()  # it would have been


def test_checkpoints_that_are_no_use_are_named(own_run: Path) -> None:
    path = own_run / "fold_2" / "last.ckpt"
    content, checkpoint = path.read_bytes(), torch.load(path, weights_only=True)

    def refused(reason: str) -> None:
        with pytest.raises(UserError, match=reason):
            load_ensemble(own_run)

    path.write_bytes(content[: len(content) // 2])
    refused(r"cannot read the checkpoint .*fold_2/last.ckpt .*it is damaged")
    path.write_text("no checkpoint")
    refused(r"cannot read the checkpoint .*fold_2/last.ckpt")
    torch.save([1, 2], path)
    refused(r"fold_2/last.ckpt does not fit the run's config.yaml")
    torch.save({**checkpoint, "state_dict": DenseNetwork(hidden=[16]).state_dict()}, path)
    refused(r"does not fit the run's config.yaml \(RuntimeError: Error.* in loading state_dict for DenseNetwork")
    torch.save({**checkpoint, "SyntheticDataModule": {"scaling": None}}, path)
    refused(r"does not fit the run's config.yaml")
    path.unlink()
    refused(r"fold_2/last.ckpt is missing; a search keeps")


def test_runs_that_are_no_use_are_refused_with_the_reason(own_run: Path, tmp_path: Path) -> None:
    def refused(reason: str, path: Path = own_run, **how: Any) -> None:
        with pytest.raises(UserError, match=reason):
            load_ensemble(path, **how)

    refused("there is no run .*nowhere", tmp_path / "nowhere")
    refused("model is 'worst'; it is one of ensemble, best, refit", model="worst")
    refused("the models cannot run on 'cuda'.*--accelerator, e.g. cpu", accelerator="cuda")
    config = (own_run / "config.yaml").read_text()
    (own_run / "config.yaml").write_text(config.replace("accelerator: cpu", "accelerator: gpu"))
    refused("the models cannot run on 'gpu', devices auto, of the run")
    assert load_ensemble(own_run, accelerator="cpu").device.type == "cpu"
    info = json.loads((own_run / "run.json").read_text())
    del info["settings"], info["digest"]  # as in a run of an older version
    (own_run / "run.json").write_text(json.dumps(info))
    (own_run / "config.yaml").write_text(config.replace("fmnist_cv.models.DenseNetwork", "gone.Network"))
    refused(r"run .* cannot be built from its config.yaml: model: there is no module 'gone'")
    (own_run / "config.yaml").write_text(config[: config.index("\nmodel:") + 1])
    refused("cannot be built from its config.yaml: the following are required: data, model")
    (own_run / "config.yaml").write_text(config[: config.index("init_args") + 4])
    refused("config.yaml cannot be read as YAML: while scanning a simple key")
    (own_run / "config.yaml").write_text("name: [")
    refused("config.yaml cannot be read as YAML: while parsing a flow node")
    (own_run / "config.yaml").write_bytes(b"name: \xff")
    refused("config.yaml cannot be read as YAML: 'utf-8' codec")
    (own_run / "config.yaml").write_text(config)
    summary = json.loads((own_run / "results.json").read_text())
    del summary["digest"]
    (own_run / "results.json").write_text(json.dumps({**summary, "refit": None}))
    refused("has no refit; make it with python -m fmnist_cv.fit --resume .* --refit", model="refit")
    (own_run / "results.json").write_text(json.dumps({**summary, "format": 99}))
    refused("was written by a newer version")
    (own_run / "results.json").unlink()
    refused("is unfinished: results.json is missing")


def test_predictions_that_are_nan_are_refused() -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1).masked_fill(images.flatten(1) > 0.5, torch.nan)

    ensemble = Ensemble(
        (TrainedNetwork("fold_2", Broken(), Scaling((0.0,), (255.0,)), (1, 1, 2)),), ("a", "b"), (1, 1, 2)
    )
    images = np.zeros((5, 1, 1, 2), dtype=np.uint8)
    assert ensemble.predict(images).labels.tolist() == [0] * 5
    images[3] = 200
    with pytest.raises(UserError, match="fold_2 predicts NaN for image 3"):
        ensemble.predict(images)
