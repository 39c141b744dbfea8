"""A run's models as one ONNX file that includes their preprocessing, checked against onnxruntime."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypedDict

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
TIE = 1e-5  # where the two most probable classes differ by less, rounding may swap them
TOLERANCE = 1e-3  # rounding in float32 changes a probability by less


class OnnxCheck(TypedDict):
    """Comparison of an ONNX model with the ensemble.

    `ties` counts images whose two most probable classes differ by less than `TIE` and were swapped.
    """

    images: int
    largest_difference: float
    ties: int


class SoftVote(nn.Module):
    """Maps stored pixels (n, c, h, w) to the mean of the models' probabilities, float32 (n, n_classes)."""

    def __init__(self, networks: tuple[TrainedNetwork, ...]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([network(images) for network in self.networks]).mean(0)


def export_onnx(
    ensemble: Ensemble, path: Path, check_on: Images, notes: dict[str, str], console: Console | None = None
) -> OnnxCheck:
    """Write an ONNX file: input "images", stored pixels (n, c, h, w) with any n; output "probabilities", float32 (n, n_classes).

    Its metadata hold class_names and image_shape, as JSON, and the notes. The file is written after the check has passed.

    Args:
        ensemble: the models, on the CPU in float32.
        path: of the file; an existing one is replaced.
        check_on: images for which onnxruntime must give the same predictions.
        notes: further metadata.
        console: where progress is shown.

    Returns:
        The result of the check.

    Raises:
        UserError: a package is missing, the models cannot be exported, or onnxruntime predicts otherwise.
    """
    require("ONNX", *PACKAGES)
    example = torch.zeros(2, *ensemble.image_shape, dtype=ensemble.dtype)
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
    except Exception as error:  # whatever the forward of a user-defined model does to the exporter
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"the network cannot be written as ONNX ({type(error).__name__}: {reason})") from None
    found = compare_with_onnxruntime(content, ensemble, check_on, console)
    replace_file(path, lambda file: file.write(content))
    return found


def _content(program: Any, ensemble: Ensemble, notes: dict[str, str]) -> bytes:
    program.model.metadata_props.update(
        {"class_names": json.dumps(ensemble.class_names), "image_shape": json.dumps(ensemble.image_shape)} | notes
    )
    content: bytes = program.model_proto.SerializeToString()
    return content


def compare_with_onnxruntime(
    content: bytes, ensemble: Ensemble, images: Images, console: Console | None = None
) -> OnnxCheck:
    """Compare the predictions of an ONNX model with those of the ensemble.

    Raises:
        UserError: they do not predict the same, or onnxruntime lacks one of the network's operations.
    """
    onnxruntime = import_module("onnxruntime")
    ours = ensemble.predict(images, console).mean  # first, since it checks dtype and shape
    batches = torch.split(torch.arange(len(images)), ensemble.batch_size)
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        theirs = np.empty(ours.shape, dtype=np.float32)
        for batch in tracked(batches, "onnxruntime", console):
            theirs[batch.numpy()] = session.run(None, {"images": images.pixels(batch).cpu().numpy()})[0]
    except Exception as error:  # onnxruntime's exceptions have no common class
        reason = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))[:300]
        raise UserError(
            f"onnxruntime {onnxruntime.__version__} cannot run the network on a CPU ({reason}); no file was written: "
            "use operations that it supports (most only for float32), or export safetensors"
        ) from None
    largest = float(np.abs(theirs - ours).max())
    others = np.flatnonzero(theirs.argmax(1) != ours.argmax(1))
    top = np.sort(ours[others], axis=1)
    ties = int((top[:, -1] - top[:, -2] < TIE).sum())
    if len(others) > ties or not largest < TOLERANCE:  # also if it is NaN
        raise UserError(
            f"the ONNX model predicts otherwise than the run's models: {len(others) - ties} of {len(images)} images get another "
            f"class, probabilities differ by up to {largest:.2g}; no file was written"
        )
    return {"images": len(images), "largest_difference": largest, "ties": ties}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's own log messages and warnings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
