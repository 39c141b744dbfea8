"""A run's networks as one ONNX file with their preprocessing inside, checked against onnxruntime."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from fmnist_cv.data import Images
from fmnist_cv.engine.run_folder import replace_file
from fmnist_cv.errors import UserError
from fmnist_cv.inference.ensemble import Ensemble, TrainedNetwork
from fmnist_cv.inference.progress import tracked
from fmnist_cv.utils.optional import require

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TIE = 1e-5  # nearer than this, rounding may put the two most probable classes of an image the other way round
TOLERANCE = 1e-3  # no rounding of float32 makes a probability differ more


class SoftVote(nn.Module):
    """uint8 images (n, c, h, w) to the mean of the networks' probabilities, float32 (n, n_classes)."""

    def __init__(self, networks: tuple[TrainedNetwork, ...]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([network(images) for network in self.networks]).mean(0)


def export_onnx(
    ensemble: Ensemble, path: Path, check_on: Images, notes: dict[str, str], console: Console | None = None
) -> dict[str, Any]:
    """Write an ONNX file: input "images", uint8 (n, c, h, w) with any n; output "probabilities", float32 (n, n_classes).

    Its metadata hold class_names and image_shape, as JSON, and the notes. The file is put in its place after it has
    passed its check.

    Args:
        ensemble: the networks, on the CPU in float32.
        path: of the file; one that is there is replaced.
        check_on: images for which onnxruntime must give the same predictions.
        notes: further metadata.
        console: where progress is shown.

    Returns:
        What the check found: "images", "largest_difference" of a probability, and "ties", images whose two most
        probable classes are nearer than 1e-5 and came out the other way round.

    Raises:
        UserError: a package is missing, the networks cannot be exported, or onnxruntime predicts otherwise.
    """
    require("ONNX", *PACKAGES)
    example = torch.zeros(2, *ensemble.image_shape, dtype=torch.uint8)
    try:
        with _quiet():
            program = torch.onnx.export(
                SoftVote(ensemble.networks).eval(),
                (example,),
                input_names=["images"],
                output_names=["probabilities"],
                dynamic_shapes=({0: torch.export.Dim("n")},),
                dynamo=True,
                verbose=False,
            )
            content = _content(program, ensemble, notes)
    except Exception as error:  # whatever a foreign network's forward does to the exporter
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the network cannot be written as ONNX ({type(error).__name__}: {reason})") from None
    found = compare_with_onnxruntime(content, ensemble, check_on, console)
    replace_file(path, lambda file: file.write(content))
    return found


def _content(program: Any, ensemble: Ensemble, notes: dict[str, str]) -> bytes:
    program.model.metadata_props.update(
        {"class_names": json.dumps(ensemble.class_names), "image_shape": json.dumps(ensemble.image_shape)} | notes
    )
    return program.model_proto.SerializeToString()


def compare_with_onnxruntime(
    content: bytes, ensemble: Ensemble, images: Images, console: Console | None = None
) -> dict[str, Any]:
    """Run an ONNX model beside the networks; see `export_onnx` for what is found.

    Raises:
        UserError: they do not predict the same, or onnxruntime lacks one of the network's operations.
    """
    onnxruntime = import_module("onnxruntime")
    ours = ensemble.predict(images.images, console).mean  # first, since it refuses what the networks do not take
    batches = images.images.split(ensemble.batch_size)
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        theirs = np.concatenate(
            [session.run(None, {"images": batch.numpy()})[0] for batch in tracked(batches, "onnxruntime", console)]
        )
    except Exception as error:  # onnxruntime's have no class in common
        reason = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))[:300]
        raise UserError(
            f"onnxruntime {onnxruntime.__version__} cannot run the network on a CPU ({reason}); the ONNX file was not kept: "
            "use operations that it has (most are for float32 alone), or export safetensors"
        ) from None
    largest = float(np.abs(theirs - ours).max())
    others = np.flatnonzero(theirs.argmax(1) != ours.argmax(1))
    top = np.sort(ours[others], axis=1)
    ties = int((top[:, -1] - top[:, -2] < TIE).sum())
    if len(others) > ties or not largest < TOLERANCE:  # not a number is no agreement, either
        raise UserError(
            f"the ONNX file predicts otherwise than the networks: {len(others) - ties} of {len(images)} images get another "
            f"class, probabilities differ by up to {largest:.2g}; it was not kept"
        )
    return {"images": len(images), "largest_difference": largest, "ties": ties}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on itself out of the output."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
