"""A run's models, rebuilt from its config and checkpoints: stored pixels in, probabilities out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from torch import Tensor, nn

from fmnist_cv.analysis.finished_run import CrossValidationResult
from fmnist_cv.config.experiment import Experiment
from fmnist_cv.config.fold_parts import FoldParts
from fmnist_cv.data import Images, KFoldDataModule
from fmnist_cv.data.pixel_kinds import KINDS, name_of, noise
from fmnist_cv.engine.fold_scoring import load_checkpoint
from fmnist_cv.engine.run_folder import FoldFolder, RunFolder
from fmnist_cv.engine.scoring import are_probabilities, normalised
from fmnist_cv.engine.trainer import make_trainer, quiet_lightning
from fmnist_cv.errors import UserError
from fmnist_cv.inference.choices import ModelChoice
from fmnist_cv.inference.progress import tracked
from fmnist_cv.models import ImageClassifier
from fmnist_cv.runtime import find_devices


class TrainedNetwork(nn.Module):
    """One trained network with its preprocessing: stored pixels (b, c, h, w) to probabilities float32 (b, n_classes).

    Args:
        name: its fold's, or "refit".
        network: returns logits, log-probabilities or probabilities; which of them is determined on 16 images of noise.
        prepare: maps stored pixels to the float32 that the network expects.
        image_shape: (channels, height, width).
        dtype: of the stored pixels.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        prepare: Callable[[Tensor], Tensor],
        image_shape: tuple[int, int, int],
        dtype: torch.dtype = torch.uint8,
    ) -> None:
        super().__init__()
        self.name, self.network, self.prepare = name, network.eval(), prepare
        with torch.inference_mode():
            outputs = network(prepare(noise(16, image_shape, dtype, seed=0)))
            self.returns_probabilities = are_probabilities(outputs.float())

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.network(self.prepare(images)).float()
        # log-softmax, also right for log-probabilities, and then exp: bit for bit what the run's own scoring stored
        return normalised(outputs) if self.returns_probabilities else outputs.log_softmax(1).exp()


@dataclass(frozen=True)
class Predictions:
    """Predictions of one or more models for n images.

    Attributes:
        probabilities: float32 (n_networks, n, n_classes).
        class_names: one per class.
    """

    probabilities: np.ndarray
    class_names: tuple[str, ...]

    @property
    def mean(self) -> np.ndarray:
        """float64 (n, n_classes): the models' mean probabilities (soft voting)."""
        mean: np.ndarray = self.probabilities.mean(0, dtype=np.float64)
        return mean

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,): the predicted classes."""
        labels: np.ndarray = self.mean.argmax(1)
        return labels

    @property
    def agreement(self) -> np.ndarray | None:
        """float64 (n,): share of the models that predict the ensemble's class on their own; None for a single model."""
        if len(self.probabilities) == 1:
            return None
        agreement: np.ndarray = (self.probabilities.argmax(2) == self.labels).mean(0)
        return agreement

    @property
    def table(self) -> pd.DataFrame:
        """One row per image: label, its probability, agreement, and the probability of each class."""
        mean, labels = self.mean, self.labels
        columns = {
            "label": [self.class_names[label] for label in labels],
            "probability": mean.max(1),
            "agreement": self.agreement,
        }
        return pd.DataFrame(columns | {f"p({name})": mean[:, i] for i, name in enumerate(self.class_names)})


@dataclass(frozen=True)
class Ensemble:
    """A soft-voting ensemble of trained models, or a single one.

    Attributes:
        networks: one per fold, or one.
        class_names: one per class.
        image_shape: (channels, height, width) of the images they take.
        device: the models' device.
        precision: makes the context in which they run.
        precision_name: the Trainer's name for it.
        batch_size: images per forward pass.
        dtype: of the pixels they take.
        decode: makes such pixels, uint8 (channels, height, width), of an image file as training did; None where the training
            images were no files.
    """

    networks: tuple[TrainedNetwork, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    precision_name: str = "32-true"
    batch_size: int = 1000
    dtype: torch.dtype = torch.uint8
    decode: Callable[[str | Path], np.ndarray] | None = None

    def predict(self, images: np.ndarray | Tensor | Images, console: Console | None = None) -> Predictions:
        """Classify images: (n, h, w), (n, c, h, w) or (n, h, w, c), of the training images' size, pixels and preprocessing.

        Args:
            images: the images, uint8, uint16 or floats as the training images were; `Images` are read in batches. For image
                files, see `predict_files`.
            console: where progress is shown.

        Raises:
            UserError: dtype or shape do not fit the models, or a model predicts NaN.
        """
        if not isinstance(images, Images):
            pixels = images.cpu() if isinstance(images, Tensor) else images
            images = Images.from_arrays(pixels, np.zeros(len(pixels), dtype=np.int64))
        if images.dtype != self.dtype:
            raise UserError(
                f"images must be {name_of(self.dtype)}, as those that the models were trained on, got {name_of(images.dtype)}"
            )
        if images.shape != self.image_shape:
            raise UserError(
                f"the images have the shape {images.shape}, but the models take {self.image_shape} "
                "(channels, height, width)"
            )
        # one block: arrays that are kept batch by batch may take the memory that the next batch would have fitted into
        probabilities = np.empty((len(self.networks), len(images), len(self.class_names)), dtype=np.float32)
        with torch.inference_mode(), self.precision():
            for indices in tracked(torch.split(torch.arange(len(images)), self.batch_size), "scoring", console):
                batch = images.pixels(indices).to(self.device)  # read once for all models
                for network, of_network in zip(self.networks, probabilities, strict=True):
                    of_network[indices.numpy()] = network(batch).float().cpu().numpy()
        bad = np.argwhere(np.isnan(probabilities).any(2))
        if len(bad):
            name, image = self.networks[bad[0, 0]].name, bad[0, 1]
            raise UserError(
                f"{name} predicts NaN for image {image} (counted from 0); use precision 32-true, or leave this model out "
                "(model='best' or 'refit')"
            )
        return Predictions(probabilities, self.class_names)


def load_ensemble(
    run: str | Path | CrossValidationResult,
    model: ModelChoice = "ensemble",
    accelerator: str | None = None,
    precision: str | None = None,
) -> Ensemble:
    """A finished run's models, at its headline epoch. The training images are not needed.

    The classes named in the run's config.yaml are imported: load runs only from sources whose code you would run, and use
    `load_exported` for models from others. Checkpoints are never unpickled into objects.

    Args:
        run: the run's folder.
        model: "ensemble" of the folds' models, the "best" fold's model, or the "refit" on all training images.
        accelerator: cpu, cuda (gpu), mps or auto; by default the run's own setting.
        precision: the Trainer's; by default the run's.

    Raises:
        UserError: the run is missing, unfinished, damaged or from a newer version, or has no such model.
    """
    result = run if isinstance(run, CrossValidationResult) else CrossValidationResult.load(run)
    experiment = result.experiment
    device, context, precision_name = _device_and_precision(result, accelerator, precision)
    networks, state = [], dict[str, Any]()
    for name, checkpoint in checkpoints(result, model):
        parts, state = load_parts(checkpoint, experiment)
        if isinstance(parts.model, ImageClassifier):  # as in training
            parts.model.to(memory_format=torch.channels_last)
        network = TrainedNetwork(
            name, parts.model, preparation_of(parts.data), tuple(state["image_shape"]), dtype_of(state)
        )
        networks.append(network.to(device))
    return Ensemble(
        tuple(networks),
        tuple(state["class_names"]),
        tuple(state["image_shape"]),
        device,
        context,
        precision_name,
        parts.data.eval_batch_size,
        dtype_of(state),
        parts.data.decode,
    )


def checkpoints(result: CrossValidationResult, model: ModelChoice) -> list[tuple[str, Path]]:
    """(name, checkpoint at the headline epoch) of each model.

    Raises:
        UserError: the run has no such model.
    """

    def headline(fold: FoldFolder) -> tuple[str, Path]:
        last = result.summary["headline"]["epoch"] == "last"
        return fold.name, fold.last_checkpoint if last else fold.best_checkpoint

    match model:
        case "ensemble":
            return [headline(fold) for fold in result.folds]
        case "best":
            return [headline(FoldFolder(result.path / result.summary["best_fold"]["name"]))]
        case "refit":
            if result.summary["refit"] is None:
                raise UserError(
                    f"run {result.path} has no refit; make it with python -m fmnist_cv.fit "
                    f"--resume {result.path} --refit"
                )
            return [("refit", RunFolder(result.path).refit.last_checkpoint)]
    raise UserError(f"model is '{model}'; it is one of {', '.join(get_args(ModelChoice))}")


def load_parts(path: Path, experiment: Experiment) -> tuple[FoldParts, dict[str, Any]]:
    """The experiment's parts with weights and scaling from a checkpoint, and the data module's state in it.

    Raises:
        UserError: the checkpoint is missing or damaged, or does not fit the experiment.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is missing; a search keeps the checkpoints of its best trial only; otherwise "
            f"{FoldFolder(path.parent).retrain_hint}"
        )
    parts = experiment.build(experiment.seed)
    checkpoint = load_checkpoint(path)
    try:
        state = checkpoint[type(parts.data).__qualname__]
        parts.data.load_state_dict(state)
        parts.model.load_state_dict(checkpoint["state_dict"])
        image_shape = tuple(int(size) for size in state["image_shape"])
        parts.model.eval()(parts.data.prepare(torch.zeros((1, *image_shape), dtype=dtype_of(state))))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise UserError(
            f"the checkpoint {path} does not fit the run's config.yaml ({reason}); {FoldFolder(path.parent).retrain_hint}"
        ) from None
    return parts, state


def dtype_of(state: dict[str, Any]) -> torch.dtype:
    """The stored pixels' dtype according to a data module's state; states from before it was recorded mean uint8."""
    return KINDS[state.get("dtype", "uint8")]


def preparation_of(data: KFoldDataModule) -> Callable[[Tensor], Tensor]:
    """A data module's `prepare`; of one that does not override it, the `Scaling` alone, which needs no images."""
    kind = type(data)
    if kind.prepare is KFoldDataModule.prepare and kind.scale is KFoldDataModule.scale and data.scaling is not None:
        return data.scaling
    return data.prepare


def _device_and_precision(
    result: CrossValidationResult, accelerator: str | None, precision: str | None
) -> tuple[torch.device, Callable[[], AbstractContextManager[Any]], str]:
    """Device, and the precision's context and name: on a CPU Lightning replaces fp16 by bf16."""
    config = result.experiment.config.trainer
    try:
        devices = find_devices(accelerator or config.accelerator, "auto" if accelerator else config.devices)
    except UserError:
        requested = (
            f"'{accelerator}'" if accelerator else f"'{config.accelerator}', devices {config.devices}, of the run"
        )
        raise UserError(
            f"the models cannot run on {requested}: this machine has no such device; choose another with --accelerator, "
            "e.g. cpu"
        ) from None
    with quiet_lightning():
        trainer = make_trainer(
            accelerator=devices.accelerator,
            devices=[devices.indices[0]] if devices.accelerator == "cuda" else 1,
            precision=precision or result.summary["environment"]["precision"],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    plugin = trainer.precision_plugin
    return trainer.strategy.root_device, plugin.forward_context, str(plugin.precision)
