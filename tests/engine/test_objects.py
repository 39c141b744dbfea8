"""Experiments on objects from Python: classes, functions, arrays, lists and data sets, resumed and read again by later commands."""

from __future__ import annotations

import functools
import io
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fmnist_cv import (
    ArrayDataModule,
    CrossValidationResult,
    cross_validate,
    cross_validation,
    load_ensemble,
    predict_files,
)
from fmnist_cv.config.objects import take_objects
from fmnist_cv.config.yaml_files import load_yaml
from fmnist_cv.engine.fold import FoldJob
from fmnist_cv.errors import UserError
from fmnist_cv.models import LinearClassifier

N = 24
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(N) % 2


class Net(nn.Module):
    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, num_classes))
        self.layers(torch.zeros(1, 3, 6, 6))

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.layers(images)
        return outputs


def make_linear() -> LinearClassifier:
    return LinearClassifier(n_classes=2, in_features=108)


def make_unsaid():  # type: ignore[no-untyped-def]
    return make_linear()


class Pairs:
    """A map-style data set as torchvision's are."""

    classes = ("cat", "dog")

    def __init__(self, transform: Callable[[Any], Any] | None = None) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(PIXELS[index]), int(LABELS[index])


class Flipped(Pairs):
    """One that augments its images itself."""

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image, label = super().__getitem__(index)
        return (image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(()) < 0.5 else image), label


def run(tmp_path: Path, **given: Any) -> CrossValidationResult:
    sections: dict[str, Any] = {
        "model": LinearClassifier,
        "cv": {"n_splits": 2, "workers": 1},
        "trainer": {"max_epochs": 1, "logger": False, "accelerator": "cpu", "precision": "32-true"},
        "report": False,
        "log_dir": str(tmp_path / "logs"),
    }
    return cross_validate(**{**sections, **given})


DATA: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (PIXELS, LABELS),
    "tensors": lambda: (torch.from_numpy(PIXELS), torch.from_numpy(LABELS)),
    "list": lambda: [(image, "dog" if label else "cat") for image, label in zip(PIXELS, LABELS, strict=True)],
    "data_set": Pairs,
    "module": lambda: ArrayDataModule(images=PIXELS, labels=LABELS, batch_size=5, groups=np.arange(N) // 2),
}


@pytest.mark.parametrize("kind", DATA)
def test_data_of_each_kind_are_run_on_and_read_again(tmp_path: Path, one_core: None, kind: str) -> None:
    result = run(tmp_path, data=DATA[kind](), run="a")
    again = CrossValidationResult.load(result.path)  # as a later command does
    pixels = again.data.train_images.pixels(torch.arange(N))
    assert np.array_equal(pixels.numpy(), PIXELS.transpose(0, 3, 1, 2))
    assert again.data.train_images.labels.tolist() == LABELS.tolist()
    named = {"list": ("cat", "dog"), "data_set": ("cat", "dog")}
    assert again.data.class_names == named.get(kind, ("0", "1"))
    assert again.data.batch_size == (5 if kind == "module" else 64)
    assert (again.data.train_images.groups is not None) == (kind == "module")
    name = {"data_set": "Pairs", "list": "list"}.get(kind, "arrays")
    assert again.summary["experiment"] == f"{name}-LinearClassifier"
    assert again.summary["data"]["name"].startswith(f"{name}-")


def test_defaults_are_said_where_progress_is_shown(tmp_path: Path, one_core: None) -> None:
    console = Console(file=io.StringIO(), width=200)
    run(tmp_path, data=(PIXELS, LABELS), console=console)
    said = "not given, so: name arrays-LinearClassifier, Adam with learning rate 0.001\n"
    assert said in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_same_call_resumes_and_other_data_are_refused(tmp_path: Path, one_core: None) -> None:
    first = run(tmp_path, data=(PIXELS, LABELS), run="a")
    assert run(tmp_path, data=(PIXELS, LABELS), resume="a").path == first.path
    with pytest.raises(UserError, match="was made on other data"):
        run(tmp_path, data=(255 - PIXELS, LABELS), resume="a")
    assert len([*first.path.parent.glob("arrays-*.npz")]) == 1  # nothing of what was refused


def test_data_are_written_before_folds_in_other_processes_need_them(
    tmp_path: Path, one_core: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, run_all = [], cross_validation._run

    def read_first(jobs: list[FoldJob], *others: Any) -> None:
        seen.extend(job.experiment.build_data().train_images.labels.tolist() for job in jobs)
        run_all(jobs, *others)

    monkeypatch.setattr(cross_validation, "_run", read_first)
    run(tmp_path, data=(PIXELS, LABELS))
    assert seen == [LABELS.tolist()] * 2


def test_a_later_command_predicts(tmp_path: Path, one_core: None) -> None:
    result = run(tmp_path, data=Pairs(), run="a")
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    predictions = predict_files(load_ensemble(result.path), [tmp_path / "a.png"])
    expected = load_ensemble(result.path).predict(torch.from_numpy(PIXELS[:1]).permute(0, 3, 1, 2))
    assert np.array_equal(predictions.mean, expected.mean)


MODELS = {
    "class": (Net, "WrappedNetwork"),
    "partial": (functools.partial(Net, width=3), "WrappedNetwork"),
    "lightning": (LinearClassifier, "LinearClassifier"),
    "function": (make_linear, "make_linear"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_may_be_a_class_or_a_function(tmp_path: Path, one_core: None, kind: str) -> None:
    model, used = MODELS[kind]
    result = run(tmp_path, model=model, data=(PIXELS, LABELS), run="a")
    saved = load_yaml((result.path / "config.yaml").read_text())["model"]
    assert saved["class_path"].endswith(f".{used}")
    if kind == "partial":
        assert saved["init_args"]["arguments"] == {"width": 3}
    assert result.summary["experiment"] == f"arrays-{'Net' if used == 'WrappedNetwork' else used}"


def test_objects_in_a_mapping_and_overrides_of_their_settings(tmp_path: Path, one_core: None) -> None:
    data = [(PIXELS[i], int(LABELS[i])) for i in range(N)]
    result = run(
        tmp_path, config={"data": data, "name": "mine"}, overrides={"data.image_size": 4, "data.batch_size": 6}
    )
    assert (result.data.train_images.shape, result.data.batch_size) == ((3, 4, 4), 6)


def test_a_test_set_is_cut_off_given_images(tmp_path: Path, one_core: None) -> None:
    result = run(tmp_path, data=(PIXELS, LABELS), overrides={"cv.test": 0.25})
    assert (result.summary["data"]["n_train"], result.summary["data"]["n_test"]) == (18, 6)
    assert len(CrossValidationResult.load(result.path).data.train_images) == 18


def test_a_test_set_and_groups_of_a_module_are_kept(tmp_path: Path, one_core: None) -> None:
    groups = np.array(["a10", "a9"]).repeat(N // 2)
    given = ArrayDataModule(
        images=PIXELS,
        labels=LABELS,
        groups=groups,
        test_images=PIXELS[:4],
        test_labels=LABELS[:4],
        class_names=["x", "y"],
    )
    result = run(tmp_path, data=given)
    later = CrossValidationResult.load(result.path)
    assert later.test_images is not None and len(later.test_images) == 4
    assert later.data.train_images.group_names == ("a10", "a9")


def test_a_module_that_reads_a_file_reads_it_in_the_folds_too(tmp_path: Path, one_core: None) -> None:
    np.savez(tmp_path / "pets.npz", images=PIXELS, labels=LABELS)
    result = run(tmp_path, data=ArrayDataModule(str(tmp_path / "pets.npz"), scaling="standardise"))
    assert (result.data.data_name, result.data.scaling_name) == ("pets", "standardise")
    assert not [*result.path.parent.glob("*.npz")]


def test_a_huggingface_data_set(tmp_path: Path, one_core: None) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [Image.fromarray(image) for image in PIXELS], "label": LABELS.tolist()}
    data = datasets.Dataset.from_dict(rows, features=features)
    assert run(tmp_path, data=data).data.class_names == ("cat", "dog")
    with pytest.raises(UserError, match="with a transform, which held-out images would get"):
        run(tmp_path, data=data.with_transform(lambda rows: rows))
    with pytest.raises(UserError, match=r"give one of them, e.g. data=my_data\['train'\]"):
        run(tmp_path, data=datasets.DatasetDict(train=data))


def make_views() -> Any:
    images, labels = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float(), torch.from_numpy(LABELS)
    return TensorDataset(images + torch.rand(()), labels), TensorDataset(images, labels)


def test_a_function_that_makes_a_data_set_with_and_without_augmentation(tmp_path: Path, one_core: None) -> None:
    result = run(tmp_path, model=Net, data=make_views, overrides={"data.batch_size": 6}, run="a")
    assert (result.summary["experiment"], result.summary["data"]["name"]) == ("make_views-Net", "make_views")
    assert (result.data.batch_size, len(result.data.train_images)) == (6, N)
    again = run(tmp_path, model=Net, data=make_views, overrides={"data.batch_size": 6}, resume="a")
    assert again.path == result.path


def test_copies_are_kept_together_unless_that_is_switched_off(tmp_path: Path, one_core: None) -> None:
    twice = (np.concatenate([PIXELS, PIXELS]), np.concatenate([LABELS, LABELS]))
    copies = run(tmp_path, data=twice).data.train_images.copies
    assert copies is not None and copies[:N].tolist() == copies[N:].tolist()
    kept = run(tmp_path, data=[*zip(*twice, strict=True)], overrides={"data.duplicates": "keep"})
    assert kept.data.train_images.copies is None


def local_function() -> Any:
    def make() -> nn.Module:
        return Net(2)

    return make


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "transform": ({"data": Pairs(transform=lambda image: image)}, "a transform, which held-out images would get"),
    "part_of_transform": (
        {"data": torch.utils.data.Subset(Pairs(transform=lambda image: image), [0, 1])},  # type: ignore[arg-type]
        "a transform, which held-out images would get",
    ),
    "random": (
        {"data": Flipped()},
        r"a Flipped whose items are random: reading image \d+ twice gives different pixels",
    ),
    "views": ({"data": (Pairs(), Pairs())}, r"a tuple of data sets, .*def my_data\(\): return"),
    "local_data": ({"data": local_function()}, "data is the function .*make, which other processes cannot find"),
    "no_labels": ({"data": PIXELS}, r"an array without labels; give data=\(images, labels\)"),
    "no_pairs": ({"data": [1, 2, 3]}, "a list whose items are no pairs"),
    "empty": ({"data": []}, "an empty list"),
    "split_arguments": (
        {"data": ArrayDataModule(images=PIXELS, labels=LABELS, n_splits=3)},
        "taken from the section cv",
    ),
    "augment": ({"data": ArrayDataModule(images=PIXELS, labels=LABELS, augment=[nn.Identity()])}, "with augment"),
    "object": ({"data": object()}, "which a config cannot hold"),
    "lambda": ({"model": lambda: Net(2)}, "a lambda, which other processes cannot find"),
    "local": ({"model": local_function()}, "define it with def or class at the top level"),
    "instance": ({"model": Net(2)}, "which a config cannot hold"),
    "unsaid": ({"model": make_unsaid}, r"returns a LightningModule.*say so .* -> LinearClassifier"),
    "partial": ({"model": functools.partial(Net, 2)}, "give them with their names"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_refused(tmp_path: Path, kind: str) -> None:
    given, reason = REFUSED[kind]
    with pytest.raises(UserError, match=reason):
        run(tmp_path, **{"data": (PIXELS, LABELS), **given})
    assert not [*tmp_path.rglob("*")]


def test_a_class_of_the_running_script_is_named_so_that_later_commands_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main: Any = types.ModuleType("__main__")
    main.__file__, main.__spec__ = str(tmp_path / "my_script.py"), None
    main.Net = type("Net", (nn.Module,), {"__module__": "__main__"})
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert take_objects({"model": main.Net})[0] == {"model": "__main__.Net"}  # not in the working folder
    monkeypatch.chdir(tmp_path)
    try:
        assert take_objects({"model": main.Net})[0] == {"model": "my_script.Net"}
        assert sys.modules.pop("my_script") is main
    finally:
        sys.modules.pop("my_script", None)


def test_plain_settings_stay() -> None:
    settings = {"model": "a.B", "data": {"class_path": "c.D"}, "cv.n_splits": 3}
    assert take_objects(settings) == (settings, None)


@pytest.mark.parametrize("key", ["image_size", "resize", "channels"])
@pytest.mark.parametrize("kind", ["arrays", "module"])
def test_a_form_of_pictures_beside_arrays_is_refused(tmp_path: Path, kind: str, key: str) -> None:
    value = {"image_size": 3, "resize": "crop", "channels": 1}[key]
    with pytest.raises(UserError, match=rf"data\.{key} has no effect on an? .*[Aa]rray.*; leave it out"):
        run(tmp_path, data=DATA[kind](), overrides={f"data.{key}": value})


def test_stored_data_are_found_from_other_folders_and_when_they_move_with_the_runs(
    tmp_path: Path, one_core: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = run(tmp_path, data=(PIXELS, LABELS), log_dir="logs", run="a").path.absolute()
    monkeypatch.chdir(tmp_path / "there")
    assert CrossValidationResult.load(path).data.train_images.labels.tolist() == LABELS.tolist()
    moved = (tmp_path / "here" / "logs").rename(tmp_path / "moved") / path.parent.name / "a"
    assert CrossValidationResult.load(moved).data.train_images.labels.tolist() == LABELS.tolist()
