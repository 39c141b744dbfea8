"""What all networks share: losses, L2 terms, class weights, schedulers and metrics, compared with by-hand values."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from fmnist_cv.data import ArrayDataModule, SyntheticDataModule
from fmnist_cv.errors import UserError
from fmnist_cv.models import BatchNormCNN, DenseNetwork, ImageClassifier, LinearClassifier, LogSoftmaxANN

MakeTrainer = Callable[..., L.Trainer]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice on loaders and logging

WEIGHTS = [0.5, 2.0, 1.0, 3.0, 0.1, 1.0, 1.0, 0.7, 4.0, 1.5]


def standing_still(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.0)


# -- loss ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
@pytest.mark.parametrize("network", [LinearClassifier, LogSoftmaxANN])
def test_the_loss_is_torchs_cross_entropy_of_the_logits(
    network: type[ImageClassifier], label_smoothing: float, class_weights: list[float] | None
) -> None:
    model = network(label_smoothing=label_smoothing, class_weights=class_weights)
    labels = torch.randint(10, (32,))
    weight = None if class_weights is None else torch.tensor(class_weights)
    logits = (3 * torch.randn(32, 10)).requires_grad_()
    outputs = logits.log_softmax(1) if model.returns_log_probabilities else logits
    loss = model.loss(outputs, labels)
    expected = F.cross_entropy(logits, labels, weight=weight, label_smoothing=label_smoothing)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits))


@pytest.mark.parametrize(
    "class_weights", [[1, 2] + [1] * 8, tuple(WEIGHTS), torch.tensor(WEIGHTS)], ids=["integers", "tuple", "tensor"]
)
def test_class_weights_of_any_kind_weigh(class_weights: Any) -> None:
    outputs, labels = torch.randn(32, 10), torch.randint(10, (32,))
    weight = torch.as_tensor(class_weights, dtype=torch.float32)
    loss = LinearClassifier(class_weights=class_weights).loss(outputs, labels)
    torch.testing.assert_close(loss, F.cross_entropy(outputs, labels, weight=weight))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing is 1.0; it must be in \[0, 1\)"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"class_weights": [1.0, 2.0]}, "class_weights has 2 values for 10 classes"),
        ({"class_weights": "balance"}, "class_weights"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        LinearClassifier(**arguments)


@pytest.mark.parametrize("network", [DenseNetwork, LogSoftmaxANN])
def test_predictions_are_probabilities(network: type[ImageClassifier]) -> None:
    model, images = network().eval(), torch.rand(6, 1, 28, 28)
    probabilities = model.predict_step((images, torch.zeros(6)), 0)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(6))
    torch.testing.assert_close(probabilities, model.layers(images).softmax(1))


# -- L2 -----------------------------------------------------------------------------------------------------


def test_l2_adds_its_term_to_the_loss_and_its_gradient_to_the_named_parameters_only() -> None:
    settings = {"classifier.*.weight": 0.01, "features.0.bias": 0.5}
    plain, penalised = BatchNormCNN(dropout=0.0), BatchNormCNN(dropout=0.0, l2=settings)
    penalised.load_state_dict(plain.state_dict())
    batch = torch.rand(8, 1, 28, 28), torch.arange(8)
    losses = [model.training_step(batch, 0) for model in (plain, penalised)]
    for loss in losses:
        loss.backward()
    coefficients = {f"classifier.{i}.weight": 0.01 for i in (0, 3, 5)} | {"features.0.bias": 0.5}
    parameters = dict(plain.named_parameters())
    term = sum(c * (parameters[name] ** 2).sum() for name, c in coefficients.items())
    torch.testing.assert_close(losses[1] - losses[0], term, rtol=1e-4, atol=1e-6)
    for (name, one), other in zip(parameters.items(), penalised.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        expected = one.grad + 2 * coefficients.get(name, 0.0) * one.detach()
        torch.testing.assert_close(other.grad, expected, rtol=1e-5, atol=1e-7)


def test_the_loss_that_is_logged_is_without_the_l2_term(trainer: MakeTrainer) -> None:
    logged = []
    for l2 in (None, {"*": 10.0}):
        torch.manual_seed(0)
        plain = trainer()
        plain.fit(LinearClassifier(optimizer=standing_still, l2=l2), datamodule=SyntheticDataModule(n_train=200))
        logged.append({name: float(value) for name, value in plain.callback_metrics.items()})
    assert logged[0] == pytest.approx(logged[1])


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_an_l2_pattern_that_names_no_parameter_is_refused(stage: str) -> None:
    model = DenseNetwork(l2={"layers.*.weight": 1e-4, "classifier.*": 1e-4})
    with pytest.raises(UserError, match=r"model.l2 names 'classifier.\*', which matches no parameter.*layers.1.weight"):
        model.setup(stage)


# -- balanced class weights ---------------------------------------------------------------------------------


def uneven(**arguments: Any) -> ArrayDataModule:
    labels = np.repeat(np.arange(3), (120, 50, 30))
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)
    return ArrayDataModule(images=images, labels=labels, **arguments)


def test_balanced_weights_are_scikit_learns_on_the_training_part(trainer: MakeTrainer) -> None:
    model, data = LinearClassifier(in_features=64, n_classes=3, class_weights="balanced"), uneven(stratify=False)
    trainer().fit(model, datamodule=data)
    labels = data.train_images.labels.numpy()[data.split.train]
    assert model.loss_weights is not None
    np.testing.assert_allclose(
        model.loss_weights.numpy(), compute_class_weight("balanced", classes=np.arange(3), y=labels), rtol=1e-6
    )
    outputs, targets = torch.randn(9, 3), torch.arange(9) % 3
    torch.testing.assert_close(
        model.loss(outputs, targets), F.cross_entropy(outputs, targets, weight=model.loss_weights)
    )
    assert "loss_weights" not in model.state_dict()


def test_balanced_weights_need_every_class(trainer: MakeTrainer) -> None:
    model = LinearClassifier(in_features=64, n_classes=4, class_weights="balanced")
    data = uneven(class_names=["a", "b", "c", "never seen"])
    with pytest.raises(UserError, match=r"'balanced': the training part has \[96, 40, 24, 0\] images per class"):
        trainer().fit(model, datamodule=data)


def test_balanced_weights_need_a_data_module_that_counts(trainer: MakeTrainer) -> None:
    loader = DataLoader(TensorDataset(torch.rand(20, 1, 28, 28), torch.arange(20) % 10), batch_size=10)
    with pytest.raises(UserError, match="'balanced' needs a data module of fmnist_cv"):
        trainer().fit(LinearClassifier(class_weights="balanced"), loader)


# -- optimiser and scheduler --------------------------------------------------------------------------------


def test_the_optimiser_is_adam_by_default_and_holds_all_parameters() -> None:
    model = BatchNormCNN()
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, Adam) and optimizer.defaults["lr"] == 1e-3
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize(("interval", "steps"), [("epoch", 2), ("step", 6)])
def test_the_scheduler_steps_once_per_interval(interval: Any, steps: int, trainer: MakeTrainer) -> None:
    model = LinearClassifier(
        optimizer=lambda parameters: SGD(parameters, lr=1.0),
        lr_scheduler=lambda optimizer: StepLR(optimizer, step_size=1, gamma=0.5),
        lr_scheduler_interval=interval,
    )
    plain = trainer(max_epochs=2)
    plain.fit(model, datamodule=SyntheticDataModule(n_train=200))
    assert plain.global_step == 6
    assert plain.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.5**steps)


# -- metrics ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [LinearClassifier, LogSoftmaxANN])
def test_metrics_are_logged_once_per_epoch_and_are_right(
    network: type[ImageClassifier], trainer: MakeTrainer, logger: Any
) -> None:
    """With weights that stand still and no dropout, an epoch's metrics are those of one pass over its images."""
    arguments = {} if network is LinearClassifier else {"dropout": 0.0}
    model = network(optimizer=standing_still, **arguments)
    data = SyntheticDataModule(n_train=200, n_test=70, batch_size=48, eval_batch_size=30)
    plain = trainer(max_epochs=3, logger=logger, log_every_n_steps=1, num_sanity_val_steps=2)
    plain.fit(model, datamodule=data)
    plain.test(model, datamodule=data, verbose=False)
    assert data.test_images is not None
    train, test = data.train_images, data.test_images
    expected = {}
    for stage, images, labels, steps in (
        ("train", train.images[data.split.train], train.labels[data.split.train], [0, 1, 2]),
        ("val", train.images[data.split.validation], train.labels[data.split.validation], [0, 1, 2]),
        ("test", test.images, test.labels, [3]),
    ):
        with torch.no_grad():
            logits = model.layers(images / 255)
        loss, accuracy = float(F.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).float().mean())
        expected[f"{stage}/loss"] = [(step, pytest.approx(loss, rel=1e-5)) for step in steps]
        expected[f"{stage}/accuracy"] = [(step, pytest.approx(accuracy, rel=1e-6)) for step in steps]
    assert {name: values for name, values in logger.values.items() if name != "epoch"} == expected


def test_metrics_of_a_later_epoch_hold_nothing_of_an_earlier_one(trainer: MakeTrainer, logger: Any) -> None:
    """The training loss of an epoch is the mean over its own batches, weighted by their sizes."""
    seen: list[list[tuple[float, int]]] = []

    class Watching(LogSoftmaxANN):
        def on_train_epoch_start(self) -> None:
            seen.append([])

        def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
            loss = super().loss(outputs, labels)
            if self.training:
                seen[-1].append((float(loss), len(labels)))
            return loss

    trainer(max_epochs=3, logger=logger).fit(Watching(label_smoothing=0.1), datamodule=SyntheticDataModule(n_train=200))
    means = [sum(loss * n for loss, n in epoch) / sum(n for _, n in epoch) for epoch in seen]
    assert [value for _, value in logger.values["train/loss"]] == pytest.approx(means, rel=1e-5)
    assert [n for _, n in seen[0]] == [64, 64, 32]


def test_a_training_step_of_ones_own_may_leave_the_metrics_out(trainer: MakeTrainer) -> None:
    class Mixing(LinearClassifier):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            images, labels = batch
            return self.loss(self((images + images.flip(0)) / 2), labels)

    plain = trainer(max_epochs=2)
    plain.fit(Mixing(), datamodule=SyntheticDataModule(n_train=200))
    assert "train/loss" not in plain.callback_metrics and "val/loss" in plain.callback_metrics


def test_a_thin_subclass_is_a_forward(trainer: MakeTrainer) -> None:
    class Mine(ImageClassifier):
        def __init__(self, width: int = 6, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.layers = nn.Sequential(
                nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, self.n_classes)
            )

        def forward(self, images: Tensor) -> Tensor:
            return self.layers(images)

    plain = trainer()
    plain.fit(Mine(width=4, label_smoothing=0.1), datamodule=SyntheticDataModule(n_train=200))
    stages, names = ("train", "val"), ("loss", "accuracy")
    assert {f"{s}/{n}" for s, n in itertools.product(stages, names)} <= plain.callback_metrics.keys()


# -- weights to start from ----------------------------------------------------------------------------------


def test_training_starts_from_a_checkpoints_weights(trainer: MakeTrainer, tmp_path: Path) -> None:
    first, path = LinearClassifier(), tmp_path / "first.ckpt"
    torch.save({"state_dict": first.state_dict()}, path)
    second = LinearClassifier(optimizer=standing_still, start_from=str(path))
    weights = [next(model.parameters()) for model in (first, second)]
    assert not torch.equal(*weights)
    trainer().fit(second, datamodule=SyntheticDataModule(n_train=200))
    assert torch.equal(*weights)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("sprung", "w")


def test_a_checkpoint_that_cannot_be_started_from_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": BatchNormCNN().state_dict()}, "other.ckpt")
    torch.save({"state_dict": Trap()}, "trap.ckpt")
    whole = Path("other.ckpt").read_bytes()
    Path("cut.ckpt").write_bytes(whole[:1000])
    Path("flipped.ckpt").write_bytes(
        whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
    )
    os.mkfifo("pipe")
    Path("pipe.ckpt").symlink_to("pipe")
    Path("endless.ckpt").symlink_to("/dev/zero")
    Path("folder.ckpt").mkdir()
    for name, reason in (
        ("missing", "No such file"),
        ("cut", "cannot read"),
        ("trap", "UnpicklingError"),
        ("flipped", "BadZipFile"),
        ("pipe", "start_from: pipe.ckpt is a named pipe; give a regular file"),
        ("endless", "endless.ckpt is a device"),
        ("folder", "folder.ckpt is a folder"),
        ("other", "is of another network: .*Missing key"),
    ):
        with pytest.raises(UserError, match=reason):
            LinearClassifier(start_from=f"{name}.ckpt").load_start()
    assert not Path("sprung").exists()
