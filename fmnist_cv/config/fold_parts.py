"""What one fold owns: model, data module and Trainer arguments; and a check of them before there is a run."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback

from fmnist_cv.config.checks import check_callbacks
from fmnist_cv.config.fitted import fit_to_data, leaves_sizes_open, sizes_of
from fmnist_cv.data import Images, KFoldDataModule
from fmnist_cv.data.duplicates import refuse_shared
from fmnist_cv.data.given_splits import split_images
from fmnist_cv.errors import UserError
from fmnist_cv.models import ImageClassifier

if TYPE_CHECKING:
    from fmnist_cv.config.experiment import Experiment


@dataclass
class FoldParts:
    """Everything that one fold owns; built for it, never shared."""

    model: L.LightningModule
    data: KFoldDataModule
    trainer: dict[str, Any]

    @property
    def callbacks(self) -> list[Callback]:
        """The Trainer's callbacks that the experiment adds."""
        callbacks = self.trainer.get("callbacks") or []
        return callbacks if isinstance(callbacks, list) else [callbacks]


def check_parts(experiment: Experiment, same_data: KFoldDataModule | None = None) -> FoldParts:
    """Build the parts once, on the CPU, and refuse what would fail only during training.

    Args:
        experiment: what the parts are built from; sizes of the network that it leaves to the data are the data's.
        same_data: a data module with the same images, so that they are not read again.

    Raises:
        UserError: the parts do not fit each other or the data.
    """
    experiment.devices()
    if leaves_sizes_open(experiment):
        same_data = same_data or experiment.build_data()
        experiment = fit_to_data(experiment, same_data)
    parts = experiment.build(seed=experiment.seed)
    name = experiment.config.model.class_path
    check_callbacks(parts.callbacks)
    _check_hooks(parts.data)
    if same_data is not None:
        parts.data.take_images(same_data)
    _check_images(parts.data)
    _check_forward(experiment, parts)
    _check_optimizers(parts.model, name)
    _check_hyperparameters(parts.model, name)
    return parts


def _check_hooks(data: KFoldDataModule) -> None:
    """Refuse hooks that would change what the network sees in training and not in predictions and exports."""
    for hook in ("on_before_batch_transfer", "on_after_batch_transfer"):
        if getattr(type(data), hook) is not getattr(KFoldDataModule, hook):
            raise UserError(
                f"{type(data).__name__} overrides {hook}, which predictions and exports never call; override "
                "prepare(images, training), which training, scoring, prediction, export and reports all call"
            )


def _check_images(data: KFoldDataModule) -> None:
    train, test = data.train_images, data.test_images  # a broken test file must be found before training
    if test is not None and test.shape != train.shape:
        raise UserError(f"the test images have the shape {test.shape}, but the training images {train.shape}")
    kinds = {part.dtype for part in (train, test) if isinstance(part, Images)}
    if len(kinds) > 1:
        named = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        raise UserError(
            f"training and test images have pixels of different types, {named}; store both with the same one"
        )
    if test is not None and data.test_cut is None and data.duplicates != "keep":
        refuse_shared(train, test)
    present = sorted(set(train.labels.tolist()))
    if len(present) < 2:
        raise UserError(
            f"there is one class, '{train.class_names[present[0]]}'; a classifier needs two: give images of another"
        )


def _check_forward(experiment: Experiment, parts: FoldParts) -> None:
    """Pass two images of the first fold through the model."""
    name, data, train = experiment.config.model.class_path, parts.data, parts.data.train_images
    data.use_split(split_images(train, experiment.plan)[0], seed=0)
    data.setup("fit")
    images = data.prepare(train.pixels(torch.arange(2)))
    try:
        with torch.inference_mode():
            outputs = parts.model.eval()(images)
        if isinstance(parts.model, ImageClassifier):
            parts.model.l2_penalty()  # refuses patterns that match nothing
            parts.model.load_start()
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        hint = _other_sizes(experiment.config.model.get("init_args", {}), train.shape)
        raise UserError(f"{name} cannot take images of shape {tuple(images.shape)}: {hint or reason}") from None
    expected = (2, len(data.class_names))
    if not isinstance(outputs, torch.Tensor) or outputs.shape != expected:
        got = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        present = sorted(set(train.labels.tolist()))
        absent = [f"'{name}'" for i, name in enumerate(train.class_names) if i not in present]
        also = f"; no training image is of the class {', '.join(absent[:5])}" if absent else ""
        raise UserError(
            f"the forward of {name} must return a tensor (images, classes) = {expected} for this data, got {got}{also}"
        )


def _check_optimizers(model: L.LightningModule, name: str) -> None:
    try:
        model.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise UserError(f"the optimizer or scheduler of {name} cannot be created: {error}") from None
    except RuntimeError:
        pass  # it needs the Trainer, to which the module is not attached yet


def _check_hyperparameters(model: L.LightningModule, name: str) -> None:
    """Checkpoints are loaded with `weights_only=True`, which takes tensors and plain values alone."""
    buffer = io.BytesIO()
    try:
        torch.save(dict(model.hparams), buffer)
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    except Exception as error:
        raise UserError(
            f"{name} saves hyperparameters that are not plain values ({type(error).__name__}), so that its "
            "checkpoints could not be loaded safely; leave them out with save_hyperparameters(ignore=[...])"
        ) from None


def _other_sizes(model: Mapping[str, Any] | Namespace, shape: tuple[int, int, int]) -> str:
    """What to set of a network's arguments where they fit images of another shape (channels, height, width)."""
    _, height, width = shape
    fitting = sizes_of(shape)
    given = {key: model[key] for key in fitting if key in model}
    if "image_size" in given and height != width:
        return f"it takes square images only, and these are {height} pixels high and {width} wide; make them square"
    return " and ".join(
        f"model.init_args.{key} is {value}, set it to {fitting[key]}"
        for key, value in given.items()
        if value != fitting[key]
    )
