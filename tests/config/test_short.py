"""Short ways to name data and network are written out in full, with defaults that are said; what fits nothing is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fmnist_cv import cross_validate
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.short import EPOCHS, WRAPPED, write_out
from fmnist_cv.config.yaml_files import load_yaml
from fmnist_cv.cross_validation import as_experiment
from fmnist_cv.errors import UserError

RESNET = "torchvision.models.resnet18"
MODULE = """
import lightning as L
import torchvision
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes: int, width: int = 4, in_channels: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)
        )

    def forward(self, images):
        return self.layers(images)


def make_net(width: int = 4) -> nn.Module:
    return Net(7, width, 3)


def make_text() -> str:
    return "net"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "short_nets.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "pets.npz", images=pixels, labels=np.arange(30) % 3)
    yield "short_nets"
    sys.modules.pop("short_nets", None)


KINDS = {
    "photos/": ("ImageFolderDataModule", "root"),
    "photos": ("ImageFolderDataModule", "root"),
    "./photos": ("ImageFolderDataModule", "root"),
    "list.csv": ("ManifestDataModule", "path"),
    "list.TSV": ("ManifestDataModule", "path"),
    "lists/pets.parquet": ("ManifestDataModule", "path"),
    "pets.npz": ("ArrayDataModule", "path"),
}


@pytest.mark.parametrize("path", KINDS)
def test_a_path_is_recognised_as_what_it_is(module: str, path: str) -> None:
    kind, key = KINDS[path]
    full = [f"--data=fmnist_cv.data.{kind}", f"--data.{key}={path}"]
    for given in ([f"--data={path}"], ["--data", path]):
        assert write_out([*given, "--data.image_size", "96", "--model=a.B"]).arguments[:4] == [
            *full,
            "--data.image_size",
            "96",
        ]
    written = load_yaml(write_out([f"--config=data: {path}\n"]).arguments[0].removeprefix("--config="))
    assert written == {"data": {"class_path": f"fmnist_cv.data.{kind}", "init_args": {key: path}}}


def test_a_section_with_a_path_and_no_class_is_one_too(module: str) -> None:
    text = yaml.safe_dump({"data": {"path": "list.csv", "group": "patient"}})
    written = load_yaml(write_out([f"--config={text}"]).arguments[0].removeprefix("--config="))
    assert written["data"]["init_args"] == {"path": "list.csv", "group": "patient"}


def test_nothing_changes_where_nothing_is_short() -> None:
    arguments = ["--config=name: a\n", "--data", "fmnist_cv.data.SyntheticDataModule", "--model=my.Net", "--refit"]
    written = write_out(arguments)
    assert (written.arguments, written.defaults) == (arguments, [])


def test_what_is_not_given_has_defaults_that_are_said(module: str) -> None:
    written = write_out(["--data=pets.npz", f"--model={RESNET}"])
    assert written.defaults == ["name pets-resnet18", "Adam with learning rate 0.001", f"{EPOCHS} epochs"]
    experiment = Experiment.parse(["--data=pets.npz", f"--model={RESNET}"])
    assert (experiment.name, experiment.config.trainer.max_epochs) == ("pets-resnet18", EPOCHS)
    assert experiment.config.model.init_args.optimizer.class_path == "torch.optim.Adam"
    sgd, given = "--model.optimizer=torch.optim.SGD", ["--name=mine", "--trainer.max_time=00:01:00:00"]
    assert write_out(["--data=pets.npz", f"--model={RESNET}", sgd, *given]).defaults == []
    config = "--config=name: mine\ntrainer: {max_steps: 4}\nmodel: {class_path: a.B, init_args: {optimizer: c.D}}\n"
    assert write_out([config, "--data=pets.npz"]).defaults == []


@pytest.mark.parametrize(
    "trainer", ['{"max_epochs": 3}', "{max_epochs: 3}", "trainer.yaml", "trainer: {max_epochs: 3}"]
)
def test_a_default_never_replaces_what_a_whole_section_gives(module: str, trainer: str) -> None:
    Path("trainer.yaml").write_text("max_epochs: 3\naccelerator: cpu\n")
    option = f"--config={trainer}\n" if trainer.startswith("trainer:") else f"--trainer={trainer}"
    experiment = Experiment.parse([option, "--data=pets.npz", f"--model={module}.Net"])
    assert experiment.config.trainer.max_epochs == 3
    assert experiment.defaults == ["name pets-Net", "Adam with learning rate 0.001"]


def test_a_network_gets_its_arguments_and_the_classifier_its_own(module: str) -> None:
    config = {"data": "pets.npz", "model": {"class_path": f"{module}.Net", "init_args": {"width": 6, "l2": {"*": 0.1}}}}
    arguments = [f"--config={yaml.safe_dump(config)}", "--model.label_smoothing", "0.1", "--model.in_channels=3"]
    model = Experiment.parse(arguments).config.model
    assert (model.class_path, model.init_args.network) == (WRAPPED, f"{module}.Net")
    assert (model.init_args.arguments, model.init_args.in_channels) == ({"width": 6}, 3)
    assert (model.init_args.label_smoothing, model.init_args.l2) == (0.1, {"*": 0.1})
    for option in ("--model.width=8", "--model.arguments.width=8", "--model.init_args.arguments.width=8"):
        assert Experiment.parse([*arguments, option]).config.model.init_args.arguments == {"width": 8}
    saved = Experiment.parse(arguments).to_yaml()  # nothing in it is short
    assert Experiment.parse([f"--config={saved}", "--model.width=9"]).config.model.init_args.arguments == {"width": 9}
    assert Experiment.from_yaml(saved).to_yaml() == saved


REFUSED = {
    "--data=photoz/": "there is no such folder or file; give a folder",
    "--data=photoz": "must be a KFoldDataModule; give a folder",
    "--data=short_nets.py": "a file that is none of .csv, .tsv, .parquet, .npz; give a folder",
    "--model=torchvision.models": "a module; give the path of",
    "--model=torch.optim.Adam": "a class that is no nn.Module; give the path of",
    "--model=torch.pi": "an object of type float; give the path of",
    "--model=short_nets.make_text": "a function that returns str; give the path of",
    "--model=alexnet7": "must be a LightningModule; give the path of",
    "--model=nope.Net": "there is no module 'nope'",
}


@pytest.mark.parametrize("option", REFUSED)
def test_what_fits_nothing_is_refused_with_what_to_write(module: str, option: str) -> None:
    other = "--model=fmnist_cv.models.LinearClassifier" if option.startswith("--data") else "--data=pets.npz"
    with pytest.raises(UserError, match=REFUSED[option]):
        Experiment.parse([other, option, "--name=a"])


@pytest.mark.parametrize("network", ["Net", "make_net"])
def test_a_run_from_python(module: str, tmp_path: Path, one_core: None, network: str) -> None:
    config = {"data": "pets.npz", "model": f"{module}.{network}", "log_dir": str(tmp_path / "logs"), "report": False}
    options = {"trainer.max_epochs": 1, "trainer.logger": False, "trainer.accelerator": "cpu", "cv.workers": 1}
    result = cross_validate(config, {**options, "cv.n_splits": 2}, run="a")
    assert result.out_of_fold().shape == (1, 30, 3)
    saved = load_yaml((result.path / "config.yaml").read_text())
    assert saved["name"] == f"pets-{network}"
    assert saved["model"]["init_args"]["n_classes"] == 3


def test_a_mapping_alone_may_be_short(module: str) -> None:
    experiment = as_experiment({"data": "pets.npz", "model": f"{module}.Net"})
    assert experiment.name == "pets-Net"
    assert experiment.config.data.class_path == "fmnist_cv.data.ArrayDataModule"


def test_the_command_says_its_defaults(
    module: str, capsys: pytest.CaptureFixture[str], one_core: None, tmp_path: Path
) -> None:
    from fmnist_cv.fit import main

    options = ["--cv.n_splits=2", "--trainer.logger=false", "--report=false", "--trainer.max_epochs=1"]
    assert main(["--data", "pets.npz", "--model", f"{module}.Net", "--run=a", "--cv.workers=1", *options]) == 0
    assert "not given, so: name pets-Net, Adam with learning rate 0.001\n" in capsys.readouterr().out
    assert (tmp_path / "lightning_logs" / "pets-Net" / "a" / "results.json").is_file()
