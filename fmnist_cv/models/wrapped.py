"""A classifier around any network: a class or a function by its dotted path, whose output layer fits the classes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import lightning as L
from torch import Tensor, nn

from fmnist_cv.errors import UserError
from fmnist_cv.models.classifier import ImageClassifier

# Names under which networks take the sizes.
_NAMES = {
    "n_classes": ("num_classes", "n_classes", "num_labels"),
    "in_channels": ("in_channels", "in_chans", "num_channels"),
    "image_size": ("image_size", "img_size"),
}


class WrappedNetwork(ImageClassifier):
    """Any network as a classifier: one of torchvision, of timm, or your own `nn.Module`.

    Where the network takes the number of classes (`num_classes`, `n_classes`, `num_labels`), the channels (`in_channels`,
    `in_chans`, `num_channels`) or the image size (`image_size`, `img_size`), it gets them. A network that does not take the
    number of classes, or has pretrained weights for another number, gets a new last linear layer. Grey images are given
    three times over to a network whose first convolution is for colour. Of outputs with several parts the logits count.

    Args:
        network: dotted path of a class or function that makes the network, e.g. "torchvision.models.resnet18".
        arguments: its arguments, e.g. {"weights": "DEFAULT"}; they go before what is filled in.
        n_classes: number of classes; null for the data's, 10 for a network made alone.
        in_channels: 1 for grey, 3 for colour; null for the data's.
        image_size: height and width of the images in pixels; null for the data's.
        kwargs: loss, optimiser and scheduler, see ImageClassifier.

    Raises:
        UserError: the path names nothing that makes a network, or the network has no linear layer to replace.
    """

    def __init__(
        self,
        network: str,
        arguments: dict[str, Any] | None = None,
        n_classes: int | None = None,
        in_channels: int | None = None,
        image_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(n_classes=n_classes, **kwargs)
        sizes = {"n_classes": self.n_classes, "in_channels": in_channels, "image_size": image_size}
        self.network, taken = _make(network, arguments or {}, {k: v for k, v in sizes.items() if v is not None})
        if not taken & {*_NAMES["n_classes"]}:
            _replace_last_layer(self.network, self.n_classes, network)
        convolutions = (layer for layer in self.network.modules() if isinstance(layer, nn.Conv2d))
        self._for_colour = (first := next(convolutions, None)) is not None and first.in_channels == 3

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 (b, c, h, w) to logits (b, n_classes)."""
        if self._for_colour and images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        outputs = self.network(images)
        logits: Tensor = getattr(outputs, "logits", outputs)
        return logits


def load_network_maker(path: str) -> Callable[..., Any]:
    """The class or function that a dotted path names.

    Raises:
        UserError: it names nothing, or something else.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"model.network is '{path}', but there is no module {error.name}; give the path of a class or function, e.g. "
            "torchvision.models.resnet18"
        ) from None
    except (AttributeError, ValueError):
        raise UserError(f"model.network is '{path}', but there is no '{name}' in {module or 'it'}") from None
    if not callable(found) or (isinstance(found, type) and not issubclass(found, nn.Module)):
        raise UserError(
            f"model.network is '{path}', which is {_kind(found)}; give an nn.Module's class, or a function that returns one"
        )
    maker: Callable[..., Any] = found
    return maker


def _make(path: str, arguments: Mapping[str, Any], sizes: Mapping[str, int]) -> tuple[nn.Module, set[str]]:
    """The network, and the names of all arguments that it took."""
    maker = load_network_maker(path)
    parameters = inspect.signature(maker).parameters
    is_open = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())  # whatever it passes them to
    passed = {
        name: size
        for key, size in sizes.items()
        if not arguments.keys() & {*_NAMES[key]}
        for name in _NAMES[key]
        if name in parameters or (is_open and not parameters.keys() & {*_NAMES[key]})
    }
    required = [
        name
        for name, p in parameters.items()
        if p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and name not in {*arguments, *passed}
    ]
    if required:
        raise UserError(
            f"model.network is '{path}', which needs the argument{'s'[: len(required) - 1]} {', '.join(required)}; give "
            f"--model.{required[0]} and a value, or a class or function that makes the whole network"
        )
    while True:
        try:
            network = maker(**arguments, **passed)
            break
        except Exception as error:  # a user's network may raise any
            # an argument that is unknown where **kwargs pass it on to, or for which pretrained weights have another value
            refused = [name for name in re.findall(r"\w+", str(error)) if name in passed and name not in parameters]
            if not refused or not isinstance(error, TypeError | ValueError):
                raise UserError(f"model.network: {path} cannot be made: {error}") from None
            del passed[refused[0]]
    if not isinstance(network, nn.Module):
        raise UserError(f"model.network is '{path}', which returns {_kind(network)}, not an nn.Module")
    if isinstance(network, L.LightningModule):
        raise UserError(
            f"model.network is '{path}', which returns a LightningModule, with an optimizer of its own; say so in the function, "
            f"def {path.rpartition('.')[2]}(...) -> {type(network).__name__}, or give the class"
        )
    return network, {*passed, *arguments}


def _replace_last_layer(network: nn.Module, n_classes: int, path: str) -> None:
    linear = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not linear or not linear[-1][0]:
        raise UserError(
            f"model.network is '{path}', which takes no number of classes (num_classes) and has no linear layer that could "
            "be replaced; give it an argument num_classes"
        )
    name, layer = linear[-1]
    if layer.out_features != n_classes:
        parent, _, attribute = name.rpartition(".")
        setattr(
            network.get_submodule(parent), attribute, nn.Linear(layer.in_features, n_classes, layer.bias is not None)
        )


def _kind(value: Any) -> str:
    if inspect.ismodule(value):
        return "a module"
    return f"the class {value.__name__}" if isinstance(value, type) else f"an object of type {type(value).__name__}"
