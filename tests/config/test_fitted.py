"""Sizes of a network that nobody gives are the data's; given ones stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from fmnist_cv import cross_validate
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.fitted import fit_to_data
from fmnist_cv.config.fold_parts import check_parts
from fmnist_cv.config.yaml_files import load_yaml
from fmnist_cv.models import BatchNormCNN, LinearClassifier
from fmnist_cv.search.search import Search

Config = dict[str, Any]


def pets(path: Path, shape: tuple[int, ...] = (16, 16, 3), n_classes: int = 3) -> Config:
    """Section `data` of 36 random images."""
    pixels = np.random.default_rng(0).integers(0, 256, (36, *shape), dtype=np.uint8)
    np.savez(path, images=pixels, labels=np.arange(36) % n_classes)
    return {"class_path": "fmnist_cv.data.ArrayDataModule", "init_args": {"path": str(path), "batch_size": 8}}


def named(network: str, **init_args: Any) -> Config:
    return {"class_path": f"fmnist_cv.models.{network}", "init_args": init_args}


NETWORKS = {
    "BatchNormCNN": ({}, {"in_channels": 3, "image_size": 16}),
    "LeNet5": ({}, {"in_channels": 3, "image_size": 16}),
    "ConvolutionalNetwork": ({"blocks": [{"channels": 4}]}, {"in_channels": 3, "image_size": 16}),
    "DenseNetwork": ({}, {"in_features": 768}),
    "LinearClassifier": ({}, {"in_features": 768}),
    "LogSoftmaxANN": ({}, {"in_features": 768}),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_data_give_the_sizes_that_are_left_out(quick: Config, tmp_path: Path, network: str) -> None:
    given, found = NETWORKS[network]
    config = {**quick, "model": named(network, **given), "data": pets(tmp_path / "pets.npz")}
    experiment = Experiment.from_yaml(yaml.safe_dump(config))
    parts = check_parts(experiment)
    fitted = fit_to_data(experiment, parts.data)
    init_args = load_yaml(fitted.to_yaml())["model"]["init_args"]
    assert {key: init_args[key] for key in (*found, "n_classes")} == {**found, "n_classes": 3}
    assert fitted.build(0).model(torch.zeros(2, 3, 16, 16)).shape == (2, 3)
    assert fit_to_data(fitted, parts.data) is fitted


def test_given_sizes_stay(quick: Config, tmp_path: Path) -> None:
    model = named("LinearClassifier", n_classes=5, in_features=7)
    experiment = Experiment.from_yaml(yaml.safe_dump({**quick, "model": model}))
    fitted = fit_to_data(experiment, experiment.build_data())
    assert fitted.config.model == experiment.config.model and (fitted.cv.n_splits, fitted.cv.n_repeats) == (3, 1)
    assert fit_to_data(fitted, fitted.build_data()) is fitted


def test_a_network_made_alone_is_for_fashion_mnist() -> None:
    assert BatchNormCNN()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert LinearClassifier()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_run_has_the_sizes_in_its_config_and_is_resumed_by_the_config_without_them(
    quick: Config, tmp_path: Path, one_core: None
) -> None:
    config = {**quick, "model": named("DenseNetwork", hidden=[4]), "data": pets(tmp_path / "pets.npz")}
    config["trainer"]["max_epochs"] = 1
    result = cross_validate(config, run="first")
    saved = load_yaml((result.path / "config.yaml").read_text())
    assert saved["model"]["init_args"]["in_features"] == 768
    assert saved["model"]["init_args"]["n_classes"] == 3
    assert cross_validate(config, resume="first").out_of_fold().shape == (1, 36, 3)


def test_a_search_has_the_sizes_in_what_identifies_it(quick: Config, tmp_path: Path) -> None:
    config = {**quick, "model": named("LinearClassifier"), "data": pets(tmp_path / "pets.npz")}
    (tmp_path / "pets.yaml").write_text(yaml.safe_dump(config))
    arguments = [f"--experiment={tmp_path / 'pets.yaml'}", "--name=rates", "--trials=1", f"--log_dir={tmp_path}"]
    space = {"model.optimizer.init_args.lr": {"float": [0.001, 0.01]}}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"space": space}))
    search = Search.parse([f"--config={tmp_path / 'space.yaml'}", *arguments])
    identity = search.identity()["experiment"]
    assert (identity["model.init_args.n_classes"], identity["model.init_args.in_features"]) == (3, 768)
