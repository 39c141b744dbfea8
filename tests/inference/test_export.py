"""Exported networks predict as the run's do, and an exported file is never trusted with more than numbers."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import Commands
from torch import Tensor, nn

import fmnist_cv
from fmnist_cv import CrossValidationResult, export, models
from fmnist_cv.data.batches import Scaling
from fmnist_cv.errors import UserError
from fmnist_cv.inference.ensemble import Ensemble, TrainedNetwork, load_ensemble
from fmnist_cv.inference.export import export_run
from fmnist_cv.inference.safetensors_export import export_safetensors, load_exported

BLOCKS = [{"channels": 4, "kernel_size": 4, "padding": "same", "pool": "max"}, {"channels": 8}]
NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("BatchNormCNN", {"widths": [60, 20]}),
    ("ConvolutionalNetwork", {"blocks": BLOCKS, "hidden": [16], "batch_norm": True}),
    ("LeNet5", {}),
    ("DenseNetwork", {"hidden": [8], "batch_norm": True}),
    ("LinearClassifier", {}),
    ("LogSoftmaxANN", {}),
]


def some_images(n: int = 20) -> Tensor:
    return torch.randint(256, (n, 1, 28, 28), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def ensemble_of(name: str, init_args: dict[str, Any]) -> Ensemble:
    """Two untrained networks, with a scaling each."""
    plain = dict(init_args)
    if "blocks" in plain:
        plain["blocks"] = [models.ConvBlock(**block) for block in plain["blocks"]]
    made = [getattr(models, name)(**plain).eval() for _ in range(2)]
    networks = tuple(
        TrainedNetwork(f"fold_{i}", m, Scaling((70.0 + i,), (90.0,)), (1, 28, 28)) for i, m in enumerate(made)
    )
    return Ensemble(networks, tuple("abcdefghij"), (1, 28, 28))


# -- ONNX ---------------------------------------------------------------------------------------------------


def test_the_onnx_file_takes_uint8_images_and_says_what_it_is(own_run: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    files, findings = export_run(own_run, "onnx")
    assert files == [own_run / "exports" / "ensemble" / "model.onnx"] == list(files[0].parent.iterdir())
    assert findings[0].startswith("onnxruntime gives the same predictions for 100 images")
    session = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
    (images,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(uint8)", [1, 28, 28])
    assert (probabilities.name, probabilities.type) == ("probabilities", "tensor(float)")
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes["class_names"])[0] == "T-shirt/top" and json.loads(notes["image_shape"]) == [1, 28, 28]
    assert notes["run"] == "finished" and len(json.loads(notes["accuracy"])["validation"]) == 3
    test = CrossValidationResult.load(own_run).data.test_images.images
    ours = load_ensemble(own_run).predict(test).mean
    for n in (1, 2, 100):  # any number of images
        theirs = session.run(None, {"images": test[:n].numpy()})[0]
        assert theirs.dtype == np.float32 and theirs == pytest.approx(ours[:n], abs=1e-5)


@pytest.mark.parametrize(("name", "init_args"), NETWORKS, ids=[name for name, _ in NETWORKS])
def test_each_of_our_networks_becomes_onnx(name: str, init_args: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from fmnist_cv.data import Images
    from fmnist_cv.inference.onnx_export import export_onnx

    images = Images(some_images(), torch.zeros(20, dtype=torch.int64), tuple("abcdefghij"))
    found = export_onnx(ensemble_of(name, init_args), tmp_path / "model.onnx", images, {})
    assert found["images"] == 20 and found["largest_difference"] < 1e-5


def test_a_file_that_predicts_otherwise_is_refused_and_a_tie_is_not(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from fmnist_cv.data import Images
    from fmnist_cv.inference.onnx_export import compare_with_onnxruntime, export_onnx

    images = Images(some_images(), torch.zeros(20, dtype=torch.int64), tuple("abcdefghij"))
    ours = ensemble_of("LinearClassifier", {})
    export_onnx(ours, tmp_path / "model.onnx", images, {})
    content = (tmp_path / "model.onnx").read_bytes()
    with pytest.raises(
        UserError, match=r"of 20 images get another class, probabilities differ by up to 0\.\d+; no file was"
    ):
        compare_with_onnxruntime(content, ensemble_of("LinearClassifier", {}), images)
    for i, network in enumerate(ours.networks):  # the same but for a hair between two classes
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
                layer.bias.data[4] = 2e-6 * (1 - i)
    export_onnx(ours, tmp_path / "model.onnx", images, {})
    for network in ours.networks:
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                layer.bias.data = layer.bias.data.flip(0)
    found = compare_with_onnxruntime((tmp_path / "model.onnx").read_bytes(), ours, images)
    assert found["ties"] == 20


class Stubborn(nn.Module):
    """Nothing that can be exported: it looks at its pixels' values."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), 10) + (1.0 if float(images.sum()) > 0 else 2.0)


def test_a_network_that_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from fmnist_cv.data import Images
    from fmnist_cv.inference.onnx_export import export_onnx

    networks = (TrainedNetwork("fold_0", Stubborn(), Scaling((0.0,), (255.0,)), (1, 28, 28)),)
    images = Images(some_images(), torch.zeros(20, dtype=torch.int64), tuple("abcdefghij"))
    with pytest.raises(UserError, match="the network cannot be written as ONNX"):
        export_onnx(Ensemble(networks, images.class_names, (1, 28, 28)), tmp_path / "model.onnx", images, {})
    assert not list(tmp_path.iterdir())


class Double(nn.Module):
    """Exported without trouble, but onnxruntime has convolutions of float32 alone on a CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 26 * 26, 10)).double()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.double()).float()


def test_an_operation_that_onnxruntime_lacks_is_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from fmnist_cv.data import Images
    from fmnist_cv.inference.onnx_export import export_onnx

    networks = (TrainedNetwork("fold_0", Double(), Scaling((0.0,), (255.0,)), (1, 28, 28)),)
    images = Images(some_images(), torch.zeros(20, dtype=torch.int64), tuple("abcdefghij"))
    reason = r"onnxruntime \d.* cannot run the network on a CPU \(Could not find an implementation for Conv.*no file was written"
    with pytest.raises(UserError, match=reason):
        export_onnx(Ensemble(networks, images.class_names, (1, 28, 28)), tmp_path / "model.onnx", images, {})
    assert not list(tmp_path.iterdir())


def test_without_its_packages_onnx_says_how_to_get_them(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"ONNX needs the package onnx: pip install 'fmnist_cv\[onnx\]'"):
        export_run(own_run, "onnx")


# -- safetensors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["ensemble", "best", "refit"])
def test_safetensors_give_the_runs_networks_again(run: Path, tmp_path: Path, model: Any) -> None:
    files, findings = export_run(run, "safetensors", model, tmp_path)
    assert sorted(files) == sorted(tmp_path.iterdir()) and "same probabilities" in findings[0]
    read, ours = load_exported(tmp_path), load_ensemble(run, model)
    assert (read.class_names, read.image_shape) == (ours.class_names, ours.image_shape)
    assert read.predict(some_images()).probabilities == pytest.approx(
        ours.predict(some_images()).probabilities, abs=1e-6
    )
    description = json.loads((tmp_path / "network.json").read_text())
    assert description["class_path"] == "fmnist_cv.models.DenseNetwork" and "optimizer" not in description["init_args"]
    results = json.loads((run / "results.json").read_text())
    expected = {
        "ensemble": results["ensemble"]["last"]["accuracy"],
        "best": next(f for f in results["folds"] if f["name"] == results["best_fold"]["name"])["last"]["test"][
            "accuracy"
        ],
        "refit": results["refit"]["test_accuracy"],
    }
    assert description["accuracy"]["test"] == expected[model]
    assert len(description["accuracy"]["validation"]) == {"ensemble": 3, "best": 1, "refit": 0}[model]


@pytest.mark.parametrize(("name", "init_args"), NETWORKS, ids=[name for name, _ in NETWORKS])
def test_each_of_our_networks_is_rebuilt_from_plain_values(
    name: str, init_args: dict[str, Any], tmp_path: Path
) -> None:
    ensemble = ensemble_of(name, init_args)
    training = {"optimizer": {"class_path": "torch.optim.Adam"}, "label_smoothing": 0.1, "l2": {"*.weight": 0.1}}
    export_safetensors(ensemble, tmp_path, f"fmnist_cv.models.{name}", {**init_args, **training}, {})
    read = load_exported(tmp_path).predict(some_images()).probabilities
    assert read == pytest.approx(ensemble.predict(some_images()).probabilities, abs=1e-6)


@pytest.fixture
def exported(run: Path, tmp_path: Path) -> Path:
    export_run(run, "safetensors", out=tmp_path / "exported")
    return tmp_path / "exported"


def test_nothing_that_a_file_names_is_imported_or_called(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = json.loads((exported / "network.json").read_text())
    trap = tmp_path / "trap.py"
    trap.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'sprung')!r}).touch()\nclass Network: pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    def refused(reason: str, **changes: Any) -> None:
        (exported / "network.json").write_text(json.dumps({**description, **changes}))
        with pytest.raises(UserError, match=reason):
            load_exported(exported)
        assert not (tmp_path / "sprung").exists() and "trap" not in sys.modules

    refused(r"names the network os.system, which is not one of fmnist_cv.models.BatchNormCNN", class_path="os.system")
    refused("names the network trap.Network", class_path="trap.Network")
    refused("names the network fmnist_cv.models.classifier.nn", class_path="fmnist_cv.models.classifier.nn")
    refused(r"names the network \['trap'\]", class_path=["trap"])
    for key in ("optimizer", "activation", "hidden"):
        for value in ("trap.Network", {"class_path": "trap.Network"}, [{"class_path": "trap.Network"}]):
            arguments = {**description["init_args"], key: value}
            if key == "optimizer":  # kept as a string that nobody calls, since nothing is trained
                (exported / "network.json").write_text(json.dumps({**description, "init_args": arguments}))
                load_exported(exported)
                assert not (tmp_path / "sprung").exists() and "trap" not in sys.modules
            else:
                refused("do not describe a network", init_args=arguments)


def test_sizes_that_a_file_names_take_no_memory_before_they_are_compared(exported: Path) -> None:
    description = json.loads((exported / "network.json").read_text())

    def refused(reason: str, text: str | None = None, **changes: Any) -> None:
        (exported / "network.json").write_text(text or json.dumps({**description, **changes}))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        with pytest.raises(UserError, match=reason):
            load_exported(exported)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes
        assert time.process_time() - started < 5

    def with_arguments(**changes: Any) -> dict[str, Any]:
        return {"init_args": {**description["init_args"], **changes}}

    refused("do not describe a network .*size mismatch", **with_arguments(hidden=[15_000, 15_000]))
    refused("do not describe a network .*size mismatch", **with_arguments(n_classes=10**9))
    refused("do not describe a network .*hidden has 100000 values", **with_arguments(hidden=[1] * 100_000))
    for image_shape in ([1, 10**6, 10**6], [10**12, 1, 1], [1, -28, -28], [0, 28, 28]):
        refused("do not describe a network .*image_shape is", image_shape=image_shape)
    refused("do not describe a network .*KeyError: 'fold_0'", networks=description["networks"][:1] * 100_000)
    refused("cannot read .*network.json", text="[" * 20_000)
    refused("cannot read .*network.json", text='{"a":' * 20_000)


def test_damaged_files_are_named(exported: Path) -> None:
    text, weights = (exported / "network.json").read_text(), (exported / "weights.safetensors").read_bytes()

    def refused(reason: str, text: str = text, weights: bytes = weights) -> None:
        (exported / "network.json").write_text(text)
        (exported / "weights.safetensors").write_bytes(weights)
        with pytest.raises(UserError, match=reason):
            load_exported(exported)

    refused("cannot read .*weights.safetensors", weights=weights[: len(weights) // 2])
    refused("cannot read .*weights.safetensors", weights=b"")
    refused("cannot read .*network.json", text=text[:50])
    refused("network.json does not describe a network", text="[]")
    refused(
        f"was written by a newer version, {fmnist_cv.__version__}; upgrade: pip",
        text=text.replace('"format": 1', '"format": 2'),
    )
    refused("do not describe a network .*size mismatch", text=text.replace("32", "16", 1))
    refused("do not describe a network", text=text.replace('"scale"', '"sclae"'))
    refused("do not describe a network", text=text.replace('"fold_0"', '"fold_7"'))
    for name in ("network.json", "weights.safetensors"):
        (exported / name).unlink()
        (exported / name).symlink_to("/dev/zero")
        with pytest.raises(UserError, match=f"{name} is a device; give a regular file"):
            load_exported(exported)
        (exported / name).unlink()
        (exported / name).write_text(text)
    (exported / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot read .*weights.safetensors.*No such file"):
        load_exported(exported)


THEIR_MODULE = """
import lightning as L, torch, torch.nn.functional as F

class Net(L.LightningModule):
    def __init__(self, width: int = 8, optimizer: str = "sgd"):
        super().__init__()
        assert optimizer == "adam"
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, width), torch.nn.Linear(width, 10))

    def forward(self, images):
        return self.net(images).softmax(1)

    def training_step(self, batch, batch_idx):
        return F.nll_loss(self(batch[0]).log(), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
"""


def test_a_users_network_is_exported_too_and_loaded_by_whoever_passes_its_class(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fmnist_cv import cross_validate

    (tmp_path / "their_network.py").write_text(THEIR_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    tiny["trainer"] |= {"logger": False, "max_epochs": 1}
    tiny["model"] = {"class_path": "their_network.Net", "init_args": {"width": 5, "optimizer": "adam"}}
    run = cross_validate(tiny).path
    ours = load_ensemble(run).predict(some_images()).probabilities
    _, findings = export_run(run, "safetensors", out=tmp_path / "out")
    assert findings[-1] == "To load them, name the class: load_exported(FOLDER, network=Net)"
    with pytest.raises(UserError, match=r"names the network their_network\.Net, which is not one of"):
        load_exported(tmp_path / "out")
    from their_network import Net  # type: ignore[import-not-found]

    read = load_exported(tmp_path / "out", network=Net).predict(some_images()).probabilities
    assert read == pytest.approx(ours, abs=1e-6)
    pytest.importorskip("onnxruntime")
    export_run(run, "onnx", out=tmp_path / "out")


# -- the command --------------------------------------------------------------------------------------------


def test_the_command_as_a_process(commands: Commands, run: Path, tmp_path: Path) -> None:
    ended = commands.run(run, "--format", "safetensors", "--out", tmp_path / "out", command="export")
    assert ended.status == 0 and ended.err == ""
    assert f"{tmp_path}/out/weights.safetensors  (" in ended.out


def test_mistakes_of_the_command_end_with_status_2(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([str(tmp_path / "gone"), "--format", "onnx"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no run")
    assert export.main([str(run), "--format", "safetensors", "--check_on", "quickstart"]) == 2
    assert "check_on is for ONNX" in capsys.readouterr().err
    (tmp_path / "network.json").write_text("precious")
    assert export.main([str(run), "--format", "safetensors", "--out", str(tmp_path)]) == 2
    assert "network.json; give another --out, or --overwrite" in capsys.readouterr().err
    assert (tmp_path / "network.json").read_text() == "precious"
    assert export.main([str(run), "--format", "safetensors", "--out", str(tmp_path), "--overwrite"]) == 0
    (tmp_path / "file").touch()
    assert export.main([str(run), "--format", "safetensors", "--out", str(tmp_path / "file")]) == 2
    assert "choose another folder with --out" in capsys.readouterr().err
