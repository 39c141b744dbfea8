"""User-defined modules for tests: modules that do not import the package, and some that fail."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging
from torch import Tensor, nn

from fmnist_cv.data import Images, SyntheticDataModule
from fmnist_cv.data.batches import ImageBatches
from fmnist_cv.models import BatchNormCNN, DenseNetwork

EVENTS: list[str] = []  # what happened in this process, in order


# -- user-defined modules -----------------------------------------------------------------------------------


class Logits(L.LightningModule):
    """Logs nothing, has no validation step."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.lr = lr
        self.layer = nn.Linear(784, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return self.loss(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class LogSoftmax(Logits):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).log_softmax(1)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.nll_loss(outputs, labels)


class Softmax(Logits):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images).softmax(1)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.nll_loss(outputs.log(), labels)


class WithOwnValidation(Logits):
    """Logs `val_f1` in a validation step of its own: 0.5 after the first epoch, and less after each."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:  # type: ignore[override]
        return {"loss": super().training_step(batch, batch_idx)}

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_f1", 0.5 / (1 + self.current_epoch))


class LogsByEpoch(Logits):
    """Logs `score`, whose value in each epoch is given."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = scores

    def on_train_epoch_end(self) -> None:
        self.log("score", self.scores[self.current_epoch])


class OnPlateau(LogsByEpoch):
    """Halves its learning rate after each epoch in which `monitor` is no better than in the first one.

    With `manual` it steps its scheduler itself, and with `every` logs `score` only in one of so many epochs.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        manual: bool = False,
        every: int = 1,
        scheduler: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(scores=[1.0, 3.0, 2.0, 4.0, 1.0])
        self.monitor, self.mode, self.every, self.scheduler = monitor, mode, every, scheduler or {}
        self.automatic_optimization = not manual

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()  # type: ignore[union-attr]
            self.manual_backward(loss)
            optimizer.step()  # type: ignore[union-attr]
        return loss

    def on_train_epoch_end(self) -> None:
        if self.current_epoch % self.every == 0:
            super().on_train_epoch_end()
        if not self.automatic_optimization:
            self.lr_schedulers().step(self.trainer.callback_metrics[self.monitor])  # type: ignore[union-attr,call-arg]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode=self.mode, patience=0, factor=0.5, threshold=1e9, threshold_mode="abs"
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": self.monitor, **self.scheduler},
        }


class WithBackbone(Logits):
    """Freezes its backbone, and with `unfreezes` trains it from the second epoch on."""

    def __init__(self, unfreezes: bool = True) -> None:
        super().__init__(lr=0.01)
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.layer, self.unfreezes = nn.Linear(16, 10), unfreezes
        if unfreezes:
            self.backbone.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.backbone(images))

    def on_train_epoch_start(self) -> None:
        if self.unfreezes and self.current_epoch == 1:
            self.backbone.requires_grad_(True)
            self.backbone[2].eval()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = self.parameters() if self.unfreezes else [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(trained, lr=self.lr)


class AveragesByItself(WeightAveraging):
    pass


class ConfiguresCallbacks(Logits):
    """Brings callbacks of its own: early stopping and checkpoints, or one that averages weights."""

    def __init__(self, averages: bool = False) -> None:
        super().__init__()
        self.averages = averages

    def configure_callbacks(self) -> list[L.Callback]:
        if self.averages:
            return [AveragesByItself()]
        return [EarlyStopping("val/loss"), ModelCheckpoint(monitor="val/loss", save_top_k=-1)]


class NearestMean(L.LightningModule):
    """Learns the classes' mean images, without an optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(10, 784))
        self.register_buffer("counts", torch.zeros(10, 1))

    def forward(self, images: Tensor) -> Tensor:
        return -torch.cdist(images.flatten(1), self.sums / self.counts.clamp(min=1))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.sums.index_add_(0, labels, images.flatten(1))
        self.counts.index_add_(0, labels, torch.ones(len(labels), 1))

    def configure_optimizers(self) -> None:
        pass


class ForgetsItsOptimizer(Logits):
    def configure_optimizers(self) -> None:  # type: ignore[override]
        torch.optim.SGD(self.parameters(), lr=self.lr)


def square(x: Tensor) -> Tensor:
    return x * x


class KeepsAFunction(Logits):
    def __init__(self, activation: Callable[[Tensor], Tensor] = square) -> None:
        super().__init__()
        self.save_hyperparameters()


class FiveClasses(Logits):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[:, :5]


class ResNet18(L.LightningModule):
    """torchvision's, in ten lines, for grey images."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.network = resnet18(num_classes=10)
        self.network.conv1 = nn.Conv2d(1, 64, kernel_size=3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


# -- modules that go wrong ----------------------------------------------------------------------------------


class MayGoWrong(L.LightningModule):
    """Where $GOES_WRONG is "fold_1 1 3 kill": in fold_1, epoch 1, step 3 the process is killed; or see below."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        fold, epoch, step, how = os.environ.get("GOES_WRONG", "none 0 0 never").split()
        if (Path(self.trainer.default_root_dir).name, self.current_epoch, batch_idx) == (fold, int(epoch), int(step)):
            match how:
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "raise":
                    raise RuntimeError("the layer is on fire")
                case "interrupt":
                    raise KeyboardInterrupt
                case "nan":
                    return loss * float("nan")
                case "hang":
                    time.sleep(120)
                case "SIGTERM" | "SIGUSR1":
                    os.kill(os.getpid(), signal.Signals[how])
        return loss


class DenseThatMayGoWrong(MayGoWrong, DenseNetwork):
    pass


class CNNThatMayGoWrong(MayGoWrong, BatchNormCNN):
    pass


class PredictsNaN(DenseNetwork):
    """Learns as it should, and predicts NaN of some images."""

    def forward(self, images: Tensor) -> Tensor:
        outputs = super().forward(images)
        return outputs if self.training else outputs.masked_fill(images.mean((1, 2, 3))[:, None] > 0.3, torch.nan)


# -- data ---------------------------------------------------------------------------------------------------


class OtherTestLabels(SyntheticDataModule):
    """The test images' labels are moved on by `shift` classes."""

    def __init__(self, shift: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shift = shift

    def load(self, train: bool) -> Images:
        images = super().load(train)
        if train:
            return images
        return Images(images.images, (images.labels + self.shift) % 10, images.class_names)


class OwnLoader(SyntheticDataModule):
    """Held-out images come as a list, turned round, shuffled, or without the rest of a batch."""

    def __init__(self, how: str = "list", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.how = how

    def predict_dataloader(self) -> Any:
        indices = torch.from_numpy(self.split.validation)
        if self.how == "shuffled":
            return ImageBatches(self.train_images, indices, 64, seed=lambda: 0)
        if self.how == "rest":
            return ImageBatches(self.train_images, indices, 64, drop_last=True)
        if self.how == "turned":
            indices = indices.flip(0)
        return list(ImageBatches(self.train_images, indices, 64))


class TellsWhenItLoads(SyntheticDataModule):
    def load(self, train: bool) -> Images:
        EVENTS.append("load train" if train else "load test")
        return super().load(train)


class TellsWhenItTrains(DenseNetwork):
    names: ClassVar[tuple[str, ...]] = ("fit began", "fit ended")

    def on_fit_start(self) -> None:
        EVENTS.append(self.names[0])

    def on_fit_end(self) -> None:
        if "test_images" in vars(self.trainer.datamodule):  # type: ignore[attr-defined]
            EVENTS.append("holds test")
        EVENTS.append(self.names[1])


class Viewer(L.LightningModule):
    """Flattens a convolution's output with `view`, as tutorials do, which needs the ordinary memory layout."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4 * 26 * 26, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.convolution(images).view(images.size(0), -1))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


# -- modules that a training step shows to be right or wrong --------------------------------------------------


class Manual(Logits):
    """Optimises by hand, with two optimisers, and shows pictures in TensorBoard."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:  # type: ignore[override]
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()
        self.logger.experiment.add_histogram("weights", self.layer.weight, self.global_step)  # type: ignore[union-attr]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.layer.parameters(), lr=0.1), torch.optim.SGD(self.layer.parameters(), lr=0.01)


class NeedsManyImages(Logits):
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        if len(batch[0]) < 20:
            raise ValueError("too few pairs of one class")
        return super().training_step(batch, batch_idx)


class FailsInTraining(Logits):
    """Fails in the given place: "step", "epoch end", "validation", "optimizer" or "checkpoint"."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def _fail(self, where: str) -> None:
        if where == self.where:
            raise LookupError(f"no such {where}")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self._fail("step")
        return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        self._fail("epoch end")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._fail("validation")

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self._fail("optimizer")
        super().optimizer_step(*args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.where == "checkpoint":
            checkpoint["activation"] = square


class LogsInACallback(L.Callback):
    """Logs `f1` and leaves a file where Lightning's callbacks leave theirs."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.log("f1", 0.5)
        (Path(trainer.default_root_dir) / "notes.txt").write_text("an epoch is over")
