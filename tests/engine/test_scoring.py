"""Scoring of predictions, against scikit-learn and by hand."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import lightning as L
import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, strategies as st
from sklearn import metrics as sk
from torch import Tensor, nn

from fmnist_cv import BatchNormCNN, SyntheticDataModule
from fmnist_cv.engine.scoring import (
    as_log_probabilities,
    classification_report,
    loss_and_accuracy,
    predict_log_probabilities,
)
from fmnist_cv.errors import NonFinite

NAMES = ("ankle boot", "bag", "coat", "dress")


def random_predictions(n: int, seed: int = 0, n_classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    probabilities = (2 * torch.randn(n, n_classes, generator=generator)).softmax(1)
    return probabilities, torch.randint(n_classes, (n,), generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_report_agrees_with_scikit_learn(dtype: torch.dtype) -> None:
    probabilities, labels = random_predictions(500)
    report = classification_report(probabilities.to(dtype), labels, NAMES)
    p, y = probabilities.numpy().astype(np.float64), labels.numpy()
    predicted = p.argmax(1)
    precision, recall, f1, support = sk.precision_recall_fscore_support(y, predicted, zero_division=0)
    assert report["n"] == 500
    assert report["accuracy"] == pytest.approx(sk.accuracy_score(y, predicted))
    assert report["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, predicted))
    assert report["macro_f1"] == pytest.approx(sk.f1_score(y, predicted, average="macro"))
    assert report["nll"] == pytest.approx(sk.log_loss(y, p / p.sum(1, keepdims=True)), rel=1e-5)
    assert report["confusion_matrix"] == sk.confusion_matrix(y, predicted).tolist()
    assert tuple(report["per_class"]) == NAMES
    for i, scores in enumerate(report["per_class"].values()):
        assert scores["support"] == support[i]
        assert (scores["precision"], scores["recall"], scores["f1"]) == pytest.approx((precision[i], recall[i], f1[i]))
    one_hot = np.eye(4)[y]
    assert report["brier"] == pytest.approx(((p - one_hot) ** 2).sum(1).mean(), rel=1e-6)


def test_report_by_hand() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]])
    labels = torch.tensor([0, 1, 1, 1])
    report = classification_report(probabilities, labels, ("a", "b", "c"))
    assert report["accuracy"] == 0.5
    assert report["nll"] == pytest.approx(-np.log([0.7, 0.6, 0.4, 0.1]).mean())
    assert report["brier"] == pytest.approx((0.14 + 0.26 + (0.25 + 0.36 + 0.01) + (0.01 + 0.81 + 0.64)) / 4)
    assert report["confusion_matrix"] == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert report["per_class"]["b"] == pytest.approx({"precision": 1.0, "recall": 1 / 3, "f1": 0.5, "support": 3})
    assert report["per_class"]["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert report["balanced_accuracy"] == pytest.approx((1 + 1 / 3) / 2)  # of the classes that are there
    assert report["calibration_error"] == pytest.approx((0.3 + 0.4 + 0.5 + 0.8) / 4)  # each in a bin of its own


def test_report_of_a_certain_and_wrong_prediction_is_finite() -> None:
    report = classification_report(torch.eye(3), torch.tensor([1, 2, 0]), ("a", "b", "c"))
    assert report["accuracy"] == 0 and report["brier"] == 2
    assert np.isfinite(report["nll"]) and report["nll"] > 50


def test_brier_agrees_with_scikit_learn_for_two_classes() -> None:
    probabilities, labels = random_predictions(200, n_classes=2)
    report = classification_report(probabilities, labels, ("no", "yes"))
    assert report["brier"] == pytest.approx(2 * sk.brier_score_loss(labels, probabilities[:, 1]), rel=1e-5)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), n_classes=st.integers(2, 12))
def test_report_is_self_consistent(seed: int, n: int, n_classes: int) -> None:
    probabilities, labels = random_predictions(n, seed, n_classes)
    report = classification_report(probabilities, labels, tuple(map(str, range(n_classes))))
    matrix = np.array(report["confusion_matrix"])
    assert matrix.sum() == n
    assert report["accuracy"] == pytest.approx(np.trace(matrix) / n)
    assert matrix.sum(1).tolist() == [scores["support"] for scores in report["per_class"].values()]
    assert 0 <= report["calibration_error"] <= 1 and 0 <= report["brier"] <= 2 and report["nll"] >= 0


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 30))
def test_logits_log_probabilities_and_probabilities_mean_the_same(seed: int, scale: float) -> None:
    logits = scale * torch.randn(20, 10, generator=torch.Generator().manual_seed(seed))
    expected = logits.log_softmax(1)
    torch.testing.assert_close(as_log_probabilities(logits), expected)
    torch.testing.assert_close(as_log_probabilities(expected), expected)
    torch.testing.assert_close(as_log_probabilities(logits.softmax(1)).exp(), expected.exp())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_probabilities_of_low_precision_are_recognised(dtype: torch.dtype) -> None:
    probabilities = torch.randn(100, 10).softmax(1).to(dtype).float()
    expected = probabilities / probabilities.sum(1, keepdim=True)
    torch.testing.assert_close(as_log_probabilities(probabilities).exp(), expected)


def test_probabilities_slightly_above_one_are_divided_by_their_sum() -> None:
    labels = torch.arange(100) % 2
    probabilities = (100.0 * torch.eye(2)[labels]).softmax(1) + 1e-6
    report = classification_report(probabilities, labels, ("a", "b"))
    assert report["calibration_error"] == pytest.approx(9.5e-7, abs=1e-6)  # it was 0.42
    assert 0 <= report["nll"] < 2e-6
    log_probabilities = as_log_probabilities(probabilities)
    assert log_probabilities.max() <= 0
    torch.testing.assert_close(log_probabilities.exp().sum(1), torch.ones(100))


def test_logits_that_happen_to_be_positive_are_not_probabilities() -> None:
    logits = torch.rand(50, 10)
    torch.testing.assert_close(as_log_probabilities(logits), logits.log_softmax(1))


def test_loss_and_accuracy_by_hand() -> None:
    log_probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1]]).log()
    loss, accuracy = loss_and_accuracy(log_probabilities, torch.tensor([0, 1, 2]))
    assert float(loss) == pytest.approx(-np.log([0.7, 0.6, 0.1]).mean())
    assert float(accuracy) == pytest.approx(2 / 3)


class PartlyFrozen(BatchNormCNN):
    """Keeps its first batch normalisation in evaluation mode, as fine-tuning does."""

    def train(self, mode: bool = True) -> PartlyFrozen:
        super().train(mode)
        self.features[1].eval()
        return self


@pytest.fixture
def data() -> SyntheticDataModule:
    data = SyntheticDataModule(n_train=60, n_test=10, n_splits=3)
    data.setup("fit")
    return data


@pytest.mark.parametrize("training", [True, False])
def test_prediction_restores_the_training_mode(data: SyntheticDataModule, training: bool) -> None:
    model = PartlyFrozen().train(training)
    modes = {name: module.training for name, module in model.named_modules()}
    statistics = model.features[5].running_mean.clone()
    log_probabilities, labels = predict_log_probabilities(model, data, data.val_dataloader(), nullcontext())
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert modes["features.1"] is False and modes["features.5"] is training
    assert log_probabilities.shape == (20, 10) and labels.shape == (20,)
    assert torch.equal(model.features[5].running_mean, statistics)
    assert not log_probabilities.requires_grad


def test_prediction_is_in_order_and_without_dropout(data: SyntheticDataModule) -> None:
    model = BatchNormCNN(dropout=0.9).train()
    log_probabilities, labels = predict_log_probabilities(model, data, data.val_dataloader(), nullcontext())
    validation = torch.from_numpy(data.split.validation)
    assert torch.equal(labels, data.train_images.labels[validation])
    with torch.no_grad():
        expected = model.eval()(data.train_images.images[validation] / 255).log_softmax(1)
    torch.testing.assert_close(log_probabilities, expected)


def test_predictions_that_are_nan_name_the_image(data: SyntheticDataModule) -> None:
    bad = data.split.validation[3]

    class Broken(L.LightningModule):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            outputs = nn.functional.pad(images.mean((1, 2, 3))[:, None], (0, 9))
            broken = (images == data.prepare(data.train_images.images[[bad]])).flatten(1).all(1)
            return outputs.masked_fill(broken[:, None], torch.nan)

    with pytest.raises(NonFinite, match=f"NaN for 1 of 20 images, the first of them number {bad} of its data set"):
        predict_log_probabilities(Broken(), data, data.val_dataloader(), nullcontext())


def test_prediction_scales_as_training_did(data: SyntheticDataModule) -> None:
    class Mean(L.LightningModule):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return nn.functional.pad(images.mean((1, 2, 3))[:, None], (0, 9))

    log_probabilities, _ = predict_log_probabilities(Mean(), data, data.val_dataloader(), nullcontext())
    pixels = data.train_images.images[torch.from_numpy(data.split.validation)].float() / 255
    mean: Any = pixels.mean((1, 2, 3))
    torch.testing.assert_close(log_probabilities[:, 0] - log_probabilities[:, 1], mean)


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator's settings are those of Linux")
def test_scoring_many_batches_takes_the_memory_of_a_few() -> None:
    class Net(L.LightningModule):
        def forward(self, images: Tensor) -> Tensor:
            return images[:, 0, 0, :3].clone()

    data = SyntheticDataModule(n_train=100, n_test=0)
    data.setup("fit")
    labels = torch.zeros(1024, dtype=torch.int64)
    batches = [(torch.zeros(1, 1, 48, 48, dtype=torch.uint8).expand(1024, 1, 48, 48), labels)] * 60
    before = psutil.Process().memory_info().rss
    found, _ = predict_log_probabilities(Net(), data, batches, nullcontext())
    assert found.shape == (60 * 1024, 3)
    assert psutil.Process().memory_info().rss - before < 150e6  # a batch of floats has 9 MB, all of them 566
