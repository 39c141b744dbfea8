"""A run's models as safetensors and a small JSON file, from which they are rebuilt without executing code in either."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fmnist_cv import models
from fmnist_cv.data.batches import Scaling
from fmnist_cv.data.pixel_kinds import KINDS, name_of
from fmnist_cv.engine.run_folder import replace_file, write_json
from fmnist_cv.errors import UserError
from fmnist_cv.inference.ensemble import Ensemble, TrainedNetwork
from fmnist_cv.utils.files import regular_file
from fmnist_cv.utils.optional import require
from fmnist_cv.utils.paths import user_path

FORMAT = 1  # of network.json
LARGEST_IMAGE = 2**24  # channels * height * width: one of 4096 x 4096 grey pixels
WEIGHTS, DESCRIPTION = "weights.safetensors", "network.json"
NETWORKS = [name for name in models.__all__ if name not in ("ConvBlock", "ImageClassifier")]
OWN = {f"fmnist_cv.models.{name}": getattr(models, name) for name in NETWORKS}

# arguments of ImageClassifier that only training needs
TRAINING = (
    "optimizer",
    "lr_scheduler",
    "lr_scheduler_interval",
    "lr_scheduler_monitor",
    "label_smoothing",
    "class_weights",
    "l2",
    "start_from",
)


def export_safetensors(
    ensemble: Ensemble, folder: Path, class_path: str, init_args: dict[str, Any], notes: dict[str, Any]
) -> list[str]:
    """Write weights.safetensors, the networks' tensors under `<name>.<key>`, and network.json.

    Args:
        ensemble: the models.
        folder: where the two files are written; existing ones are replaced.
        class_path, init_args: the network's, as in the run's config.
        notes: further keys of the JSON.

    Returns:
        Names of the arguments that are objects, which the JSON file cannot hold.

    Raises:
        UserError: safetensors is not installed, or the data module scales its images in a way of its own, which a file
            cannot hold.
    """
    require("The safetensors format", "safetensors")
    from safetensors.torch import save

    scalings = [network.prepare for network in ensemble.networks if isinstance(network.prepare, Scaling)]
    if len(scalings) < len(ensemble.networks):
        raise UserError(
            "the run's data module has a custom scaling, which network.json cannot hold; export ONNX, which can"
        )
    ours = isinstance(ensemble.networks[0].network, models.ImageClassifier)
    kept = {key: value for key, value in init_args.items() if not (ours and key in TRAINING)}
    objects = sorted(key for key, value in kept.items() if _holds_objects(value))
    description = {
        "format": FORMAT,
        "class_path": class_path,
        "init_args": {key: value for key, value in kept.items() if key not in objects},
        "networks": [
            {"name": network.name, "scaling": scaling.state_dict()}
            for network, scaling in zip(ensemble.networks, scalings, strict=True)
        ],
        "class_names": list(ensemble.class_names),
        "image_shape": list(ensemble.image_shape),
        "dtype": name_of(ensemble.dtype),
        **({"objects_left_out": objects} if objects else {}),
        **notes,
    }
    tensors = {
        f"{n.name}.{key}": tensor.contiguous().clone()  # tied weights are stored twice
        for n in ensemble.networks
        for key, tensor in n.network.state_dict().items()
    }
    replace_file(folder / WEIGHTS, lambda file: file.write(save(tensors)))
    write_json(folder / DESCRIPTION, description)
    return objects


def load_exported(folder: str | Path, network: Callable[..., nn.Module] | None = None) -> Ensemble:
    """The models that `export_safetensors` wrote, in float32 on the CPU.

    Nothing that the files name is imported or called: only classes of fmnist_cv.models are instantiated, from plain
    values. Their memory is that of the tensors in the file, whose sizes are checked first.

    Args:
        folder: has weights.safetensors and network.json.
        network: makes the network from the JSON's init_args, where its class is not one of fmnist_cv.models; it is called
            with the sizes in the JSON, whose memory is not checked.

    Raises:
        UserError: safetensors is not installed; the files are missing, damaged, from a newer version, or do not fit each
            other; the class is not one of fmnist_cv.models, and no `network` is given.
    """
    folder = user_path(folder, "the folder")
    description, tensors = _read_description(folder / DESCRIPTION), _read_weights(folder / WEIGHTS)
    class_path = description.get("class_path")
    make = network or OWN.get(str(class_path))
    if make is None:
        raise UserError(
            f"{folder / DESCRIPTION} names the network {class_path}, which is not one of {', '.join(OWN)}; other classes are "
            "not imported: pass the class or a function, load_exported(..., network=MyNet)"
        )
    try:
        init_args = _plain_arguments(description["init_args"])
        channels, height, width = map(int, description["image_shape"])
        if not 0 < channels * height * width <= LARGEST_IMAGE or min(channels, height, width) < 1:
            raise ValueError(f"image_shape is {description['image_shape']}")
        tensors_of: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            name, _, own_key = key.partition(".")
            tensors_of.setdefault(name, {})[own_key] = tensor
        dtype = KINDS[description.get("dtype", "uint8")]
        networks = []
        for entry in description["networks"]:
            name = str(entry["name"])
            made = _make(make, init_args, tensors_of.pop(name), is_ours=network is None)  # each name once
            scaling = Scaling.from_state_dict(entry["scaling"])
            networks.append(TrainedNetwork(name, made, scaling, (channels, height, width), dtype))
        class_names = tuple(map(str, description["class_names"]))
        ensemble = Ensemble(tuple(networks), class_names, (channels, height, width), dtype=dtype)
        ensemble.predict(torch.zeros(1, channels, height, width, dtype=dtype))
    except Exception as error:  # the file may hold values of any type
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UserError(f"{folder / DESCRIPTION} and {WEIGHTS} do not describe a network ({reason})") from None
    return ensemble


def _make(
    make: Callable[..., nn.Module], init_args: dict[str, Any], tensors: dict[str, torch.Tensor], is_ours: bool
) -> nn.Module:
    """A network with the tensors. For this package's networks, sizes are compared before memory is allocated."""
    if not is_ours:
        made = make(**init_args)
        made.load_state_dict(tensors)
        return made
    for key, value in init_args.items():
        if isinstance(value, list) and len(value) > len(tensors):  # each layer has at least one tensor
            raise ValueError(f"{key} has {len(value)} values, but there are {len(tensors)} tensors")
    with torch.device("meta"):
        made = make(**init_args)
    dtypes = {key: tensor.dtype for key, tensor in made.state_dict().items()}
    made.load_state_dict({key: t.to(dtypes.get(key, t.dtype)) for key, t in tensors.items()}, assign=True)
    return made


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(regular_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(description, dict) or not isinstance(description.get("format"), int):
        raise UserError(f"{path} does not describe a network")
    if description["format"] > FORMAT:
        raise UserError(
            f"{path} was written by a newer version, {description.get('fmnist_cv')}; upgrade: "
            "pip install --upgrade fmnist_cv"
        )
    return description


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    require("The safetensors format", "safetensors")
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(regular_file(path).read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _plain_arguments(init_args: dict[str, Any]) -> dict[str, Any]:
    """The arguments with convolutional blocks, the only ones that are not plain values, built from plain values."""
    blocks = {"blocks": [models.ConvBlock(**block) for block in init_args["blocks"]]} if "blocks" in init_args else {}
    return init_args | blocks


def _holds_objects(value: Any) -> bool:
    if isinstance(value, dict):
        return "class_path" in value or any(map(_holds_objects, value.values()))
    return isinstance(value, list) and any(map(_holds_objects, value))
