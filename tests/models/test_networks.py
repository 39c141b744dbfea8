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
from fmnist_cv.errors import UserError
from fmnist_cv.models import (
    BatchNormCNN,
    ConvBlock,
    ConvolutionalNetwork,
    DenseNetwork,
    ImageClassifier,
    LeNet5,
    LinearClassifier,
    LogSoftmaxANN,
)
from fmnist_cv.models.layers import Dropout, RBFOutput, initialise


def small_cnn(**kwargs: Any) -> ConvolutionalNetwork:
    return ConvolutionalNetwork([ConvBlock(8, pool="max"), ConvBlock(8, 4, "same", "max", 0.1)], [32], **kwargs)


NETWORKS = (BatchNormCNN, DenseNetwork, LinearClassifier, LogSoftmaxANN, LeNet5, small_cnn)


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
        nn.Flatten,
        nn.Linear,
        kind,
        Dropout,
        nn.Linear,
        kind,
        Dropout,
        nn.Linear,
    ]
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


# -- convolutional networks ---------------------------------------------------------------------------------


def test_an_even_kernel_is_padded_as_in_keras() -> None:
    """k - 1 zeros in all, the odd one at the right and the bottom."""
    network = ConvolutionalNetwork([ConvBlock(1, 4, "same")])
    convolution = next(layer for layer in network.features if isinstance(layer, nn.Conv2d))
    images = torch.rand(2, 1, 28, 28)
    expected = F.conv2d(F.pad(images, (1, 2, 1, 2)), convolution.weight, convolution.bias).relu()
    torch.testing.assert_close(network.features(images), expected.flatten(1))


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_pooling_before_or_after_the_activation_is_the_same(activation: Any) -> None:
    network = ConvolutionalNetwork([ConvBlock(4, 3, "same", pool="max")], activation=activation)
    convolution = next(layer for layer in network.features if isinstance(layer, nn.Conv2d))
    function = {"relu": F.relu, "tanh": torch.tanh, "gelu": F.gelu}[activation]
    images = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(network.features(images), F.max_pool2d(function(convolution(images)), 2).flatten(1))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: DenseNetwork([0]), "model.hidden is 0; it must be at least 1"),
        (lambda: DenseNetwork([64, -1]), "model.hidden holds -1"),
        (lambda: LogSoftmaxANN([64, 0]), "model.hidden holds 0"),
        (lambda: DenseNetwork(in_features=0), "model.in_features is 0"),
        (lambda: DenseNetwork(dropout=1.5), "model.dropout is 1.5; it is a probability, between 0 and 1"),
        (lambda: DenseNetwork(dropout=-0.1), "model.dropout is -0.1"),
        (lambda: DenseNetwork(dropout=float("nan")), "model.dropout is nan"),
        (lambda: LinearClassifier(n_classes=0), "model.n_classes is 0"),
        (lambda: BatchNormCNN(n_classes=-2), "model.n_classes is -2"),
        (lambda: BatchNormCNN(widths=(600, 0)), "model.widths holds 0"),
        (lambda: BatchNormCNN(dropout=2), "model.dropout is 2"),
        (lambda: BatchNormCNN(in_channels=0), "model.in_channels is 0"),
        (lambda: BatchNormCNN(image_size=7), "model.image_size is 7; it must be at least 8"),
        (lambda: small_cnn(image_size=0), "model.image_size is 0"),
        (lambda: small_cnn(in_channels=-1), "model.in_channels is -1"),
        (lambda: small_cnn(input_padding=-1), "model.input_padding is -1; it must be at least 0"),
        (lambda: small_cnn(input_padding=29), r"model.input_padding is 29, more than the image has pixels \(28\)"),
        (lambda: ConvolutionalNetwork([ConvBlock(4)], [0]), "model.hidden is 0"),
        (lambda: ConvBlock(0), "model.blocks.channels is 0"),
        (lambda: ConvBlock(4, 0), "model.blocks.kernel_size is 0"),
        (lambda: ConvBlock(4, dropout=7), "model.blocks.dropout is 7"),
        (lambda: LeNet5(image_size=0), "model.image_size is 0"),
        (lambda: LeNet5(gamma=0), "model.gamma is 0; it must be greater than 0"),
    ],
)
def test_sizes_that_no_network_can_have_are_refused(make: Callable[[], object], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        make()


def test_blocks_that_shrink_the_image_to_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="28 pixels is too small for these 2 blocks"):
        ConvolutionalNetwork([ConvBlock(2, 15), ConvBlock(2, 15)])


def test_making_a_network_leaves_batch_statistics_alone() -> None:
    network = ConvolutionalNetwork([ConvBlock(3)], batch_norm=True)
    norm = next(layer for layer in network.features if isinstance(layer, nn.BatchNorm2d))
    assert norm.running_mean is not None and not norm.running_mean.any() and network.features.training


def test_lenet5_s_output_is_minus_half_the_squared_distance() -> None:
    network = LeNet5().eval()
    images = torch.rand(4, 1, 28, 28)
    features = network.classifier[:-1](network.features(images))
    distances = torch.cdist(features, network.classifier[-1].centres) ** 2
    torch.testing.assert_close(network(images), -0.5 * distances, rtol=1e-4, atol=1e-4)


def test_keras_s_clipping_stops_the_gradient_of_far_centres() -> None:
    plain, clipped = RBFOutput(3, 2), RBFOutput(3, 2, clip=True)
    for output in (plain, clipped):
        output.centres.data = torch.tensor([[0.0, 0, 0], [6.0, 0, 0]])  # squared distances 0 and 36
        F.cross_entropy(output(torch.zeros(1, 3)), torch.tensor([1])).backward()
    assert plain.centres.grad is not None and plain.centres.grad[1].any()
    assert clipped.centres.grad is not None and not clipped.centres.grad[1].any()


@pytest.mark.parametrize(
    ("how", "std"),
    [
        ("glorot_uniform", (2 / (400 + 300)) ** 0.5),
        ("he_normal", (2 / 400) ** 0.5),
        ("unit_normal", 1.0),
        ("small_normal", 0.01),
    ],
)
def test_initial_weights_have_the_named_distribution(how: Any, std: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(400, 300)
    initialise(layer, how)
    assert float(layer.weight.std()) == pytest.approx(std, rel=0.02) and not layer.bias.any()
    if how == "he_normal":
        assert float(layer.weight.abs().max()) <= 2 * std / 0.879 + 1e-6
    if how == "glorot_uniform":
        assert float(layer.weight.abs().max()) <= 3**0.5 * std + 1e-6


def test_torch_s_initial_weights_are_left_alone() -> None:
    layer = nn.Linear(5, 4)
    before = layer.weight.clone(), layer.bias.clone()
    initialise(layer, "torch")
    assert torch.equal(layer.weight, before[0]) and torch.equal(layer.bias, before[1])
