"""The networks have the shapes and sizes that were published, and each of them learns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from fmnist_cv.data import SyntheticDataModule
from fmnist_cv.models import BatchNormCNN, DenseNetwork, ImageClassifier, LinearClassifier, LogSoftmaxANN
from fmnist_cv.models.layers import Dropout

NETWORKS = (BatchNormCNN, DenseNetwork, LinearClassifier, LogSoftmaxANN)


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_outputs_are_images_by_classes(network: type[ImageClassifier]) -> None:
    assert network()(torch.rand(3, 1, 28, 28)).shape == (3, 10)
    assert network(n_classes=4)(torch.rand(2, 1, 28, 28)).shape == (2, 4)


@pytest.mark.parametrize("image_size", [28, 29, 32, 64])
def test_the_cnn_takes_other_sizes_and_colours(image_size: int) -> None:
    network = BatchNormCNN(in_channels=3, image_size=image_size, n_classes=5)
    assert network(torch.rand(2, 3, image_size, image_size)).shape == (2, 5)


@pytest.mark.parametrize("network", [DenseNetwork, LinearClassifier, LogSoftmaxANN])
def test_dense_networks_take_other_sizes_and_colours(network: type[ImageClassifier]) -> None:
    assert network(in_features=3 * 8 * 6)(torch.rand(2, 3, 8, 6)).shape == (2, 10)


def test_the_cnn_has_the_published_layers() -> None:
    network = BatchNormCNN()
    convolutions = (32 * 1 * 9 + 32) + (64 * 32 * 9 + 64)
    batch_normalisation = 2 * 32 + 2 * 64
    linear = (2304 * 600 + 600) + (600 * 120 + 120) + (120 * 10 + 10)
    assert size(network) == convolutions + batch_normalisation + linear == 1_475_338
    assert network.features(torch.rand(2, 1, 28, 28)).shape == (2, 2304)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.25]
    assert [m.padding for m in network.modules() if isinstance(m, nn.Conv2d)] == [(1, 1), (0, 0)]


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (LogSoftmaxANN(), 109_386),
        (LinearClassifier(), 7_850),
        (DenseNetwork(), 109_386),
        (DenseNetwork(hidden=[]), 7_850),
        (DenseNetwork(hidden=[32], n_classes=3), 784 * 32 + 32 + 32 * 3 + 3),
        (BatchNormCNN(widths=(50, 20)), 320 + 18_496 + 192 + 2304 * 50 + 50 + 50 * 20 + 20 + 210),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_parameters_are_as_many_as_the_layers_say(network: ImageClassifier, parameters: int) -> None:
    assert size(network) == parameters


@pytest.mark.parametrize(
    ("linear_activation", "kinds"),
    [
        (False, ["Linear", "Identity", "Dropout", "Linear", "Identity", "Linear"]),
        (True, ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Linear"]),
    ],
)
def test_the_cnns_head_is_as_asked_for(linear_activation: bool, kinds: list[str]) -> None:
    network = BatchNormCNN(dropout=0.4, widths=(30, 20), linear_activation=linear_activation)
    assert [type(layer).__name__ for layer in network.classifier] == kinds
    assert network.classifier[2].p == 0.4


@pytest.mark.parametrize(
    ("activation", "kind"), [("relu", nn.ReLU), ("tanh", nn.Tanh), ("gelu", nn.GELU), ("sigmoid", nn.Sigmoid)]
)
def test_dense_layers_are_as_asked_for(activation: Any, kind: type[nn.Module]) -> None:
    layers = DenseNetwork(hidden=[20, 15], activation=activation, dropout=0.3).layers
    assert [type(layer) for layer in layers] == [
        nn.Flatten, nn.Linear, kind, Dropout, nn.Linear, kind, Dropout, nn.Linear
    ]  # fmt: skip
    assert not any(isinstance(layer, nn.Dropout) for layer in DenseNetwork(hidden=[20]).layers)


def test_pooling_before_relu_equals_relu_before_pooling() -> None:
    network = BatchNormCNN(dropout=0.0)
    layers = list(network.features)
    layers[2:4], layers[6:8] = layers[3:1:-1], layers[7:5:-1]  # ReLU, then pooling, as in the paper
    published = nn.Sequential(*layers, network.classifier)
    assert [type(layer) for layer in layers[2:4]] == [nn.ReLU, nn.MaxPool2d]

    images, labels = torch.rand(16, 1, 28, 28), torch.arange(16) % 10
    results = []
    for forward in (network, published):
        network.zero_grad()
        outputs = forward(images)
        F.cross_entropy(outputs, labels).backward()
        results.append((outputs.detach(), [p.grad.clone() for p in network.parameters() if p.grad is not None]))
    (outputs, gradients), (expected, expected_gradients) = results
    assert len(gradients) == len(list(network.parameters()))
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-7)


def test_log_softmax_rows_are_log_probabilities() -> None:
    network = LogSoftmaxANN()
    outputs = network(50 * torch.rand(8, 1, 28, 28))
    assert (outputs <= 0).all()
    torch.testing.assert_close(outputs.exp().sum(1), torch.ones(8))


def test_log_softmax_and_nll_are_cross_entropy_of_the_logits() -> None:
    network, images, labels = LogSoftmaxANN().eval(), torch.rand(20, 1, 28, 28), torch.arange(20) % 10
    torch.testing.assert_close(network.loss(network(images), labels), F.cross_entropy(network.layers(images), labels))


def test_hyperparameters_default_to_the_published_ones() -> None:
    kinds = OrderedDict((type(layer).__name__, layer) for layer in LogSoftmaxANN().layers)
    assert list(kinds) == ["Flatten", "Linear", "ReLU", "Dropout"] and kinds["Dropout"].p == 0.25
    assert LogSoftmaxANN.returns_log_probabilities and not DenseNetwork.returns_log_probabilities


def test_two_networks_share_nothing() -> None:
    one, other = DenseNetwork(), DenseNetwork()
    assert not {p.data_ptr() for p in one.parameters()} & {p.data_ptr() for p in other.parameters()}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_learns(network: type[ImageClassifier], trainer: Callable[..., L.Trainer], logger: Any) -> None:
    def optimizer(parameters: Any) -> Adam:
        return Adam(parameters, lr=2e-3)

    plain = trainer(max_epochs=5, logger=logger)
    plain.fit(network(optimizer=optimizer), datamodule=SyntheticDataModule(n_train=250, batch_size=20))
    losses = [value for _, value in logger.values["train/loss"]]
    assert len(losses) == 5 and losses[-1] < 0.85 * losses[0]
    assert plain.callback_metrics["train/accuracy"] > 0.3


def test_inputs_may_be_channels_last() -> None:
    network, images = BatchNormCNN(in_channels=3).eval(), torch.rand(2, 3, 28, 28)
    expected: Tensor = network(images)
    torch.testing.assert_close(network(images.contiguous(memory_format=torch.channels_last)), expected)
