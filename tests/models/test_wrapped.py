"""Any network becomes a classifier whose outputs and inputs fit the data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fmnist_cv.errors import UserError
from fmnist_cv.models import WrappedNetwork

HERE = __name__


class Plain(nn.Module):
    """Takes no sizes; colour images, seven outputs."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.heads = nn.ModuleDict({"aux": nn.Linear(4, 2), "main": nn.Linear(4, 7, bias)})

    def forward(self, images: Tensor) -> Any:
        return SimpleNamespace(logits=self.heads["main"](self.features(images)))


class Sized(nn.Module):
    """Takes all sizes, under other names."""

    def __init__(self, n_classes: int, in_chans: int, img_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_chans * img_size**2, n_classes))

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.layers(images)
        return outputs


def open_ended(weights: str | None = None, **kwargs: Any) -> nn.Module:
    """Passes its arguments on, as torchvision's functions do, and as these refuses another number of classes with weights."""
    if weights and kwargs.get("num_classes", 7) != 7:
        raise ValueError(f"The parameter 'num_classes' expected value 7 but got {kwargs['num_classes']} instead.")
    return _Passed(**kwargs)


class _Passed(nn.Module):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))
        nn.init.ones_(self.layers[-1].weight)

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.layers(images)
        return outputs


def no_network() -> int:
    return 3


def headless() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.ReLU())


def wrapped(name: str, **kwargs: Any) -> WrappedNetwork:
    return WrappedNetwork(f"{HERE}.{name}", **{"n_classes": 5, "in_channels": 3, "image_size": 8, **kwargs})


@pytest.mark.parametrize("name", ["Plain", "Sized", "open_ended"])
def test_outputs_fit_the_classes(name: str) -> None:
    assert wrapped(name)(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


def test_only_the_last_layer_is_new_and_only_where_it_does_not_fit() -> None:
    network = wrapped("Plain", arguments={"bias": False}).network
    assert network.heads["main"].bias is None and network.heads["aux"].out_features == 2
    assert torch.equal(
        wrapped("open_ended", n_classes=7, arguments={"weights": "a"}).network.layers[-1].weight, torch.ones(7, 3)
    )
    assert wrapped("open_ended", arguments={"weights": "a"}).network.layers[-1].weight.shape == (5, 3)


def test_given_arguments_go_first() -> None:
    network = wrapped("open_ended", arguments={"num_classes": 9}).network
    assert network.layers[-1].out_features == 9


def test_a_network_for_colour_gets_grey_three_times() -> None:
    model = wrapped("Plain", in_channels=1).eval()
    grey = torch.rand(2, 1, 8, 8)
    assert torch.equal(model(grey), model(grey.repeat(1, 3, 1, 1)))


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = (torch.manual_seed(1) and wrapped("Plain").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


REFUSED = {
    ("nowhere.Net",): "there is no module nowhere",
    (f"{HERE}.Missing",): "there is no 'Missing'",
    (f"{HERE}.HERE",): "an object of type str",
    (f"{HERE}.no_network",): "returns an object of type int, not an nn.Module",
    (f"{HERE}.headless",): "takes no number of classes",
    (
        "torch.nn.Conv2d",
    ): "which needs the arguments in_channels, out_channels, kernel_size; give --model.in_channels and a value",
    ("torch.optim.Adam",): "the class Adam; give an nn.Module",
}


@pytest.mark.parametrize("path", REFUSED)
def test_what_makes_no_network_is_refused(path: tuple[str]) -> None:
    with pytest.raises(UserError, match=REFUSED[path]):
        WrappedNetwork(*path)
