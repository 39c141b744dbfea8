"""`ImageClassifier`, the base class of all networks: a network is a thin subclass with a `forward`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, Literal

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fmnist_cv.errors import UserError
from fmnist_cv.models.layers import check_size
from fmnist_cv.models.schedules import make_scheduler, needs_length, training_length
from fmnist_cv.utils.checkpoints import read_checkpoint
from fmnist_cv.utils.lightning_internals import HOOK_NAME
from fmnist_cv.utils.paths import user_path


class ImageClassifier(L.LightningModule):
    """Base of the networks: loss, metrics, optimiser and scheduler.

    A subclass implements `forward`, images float32 (b, c, h, w) to logits (b, n_classes), and passes
    `**kwargs` on. One that returns log-probabilities sets `returns_log_probabilities = True`; its loss is then
    the negative log-likelihood, so that no softmax is taken twice.

    Logs `train/loss`, `train/accuracy`, `val/loss`, `val/accuracy`, `test/loss` and `test/accuracy`, once per
    epoch: logging in every step slows a small network down by 40 %.

    Args:
        n_classes: number of classes; null for the data's, 10 for a network made alone.
        optimizer: creates the optimiser from the parameters; in YAML, a class_path and init_args.
        lr_scheduler: creates the scheduler from the optimiser; in YAML, a class_path and init_args. Those of
            `fmnist_cv.models.schedules` can be combined, and by default are as long as the training.
        lr_scheduler_interval: step the scheduler once per "epoch" or once per "step".
        lr_scheduler_monitor: the metric that ReduceLROnPlateau uses after each epoch; no other scheduler uses it.
        label_smoothing: weight of the uniform distribution in the training target, in [0, 1).
        class_weights: weight of each class in the training loss; "balanced" gives n / (n_classes * count), as in
            scikit-learn, counted on the training part. None for equal weights.
        l2: adds sum over the named parameters of coefficient * sum(w^2) to the training loss, as Keras's
            kernel_regularizer does. Keys are patterns of parameter names, e.g. {"classifier.*.weight": 1e-4}.
        start_from: checkpoint whose weights training starts from, e.g. another run's best.ckpt; None for fresh weights.
            Weights that have seen the images which a fold holds out make its score optimistic.
    """

    returns_log_probabilities = False

    def __init__(
        self,
        n_classes: int | None = None,
        optimizer: Callable[[Iterable[Any]], Optimizer] = Adam,
        lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        lr_scheduler_monitor: str = "val/loss",
        label_smoothing: float = 0.0,
        class_weights: list[float] | Literal["balanced"] | None = None,
        l2: dict[str, float] | None = None,
        start_from: str | None = None,
    ) -> None:
        super().__init__()
        n_classes = 10 if n_classes is None else n_classes
        check_size("n_classes", n_classes)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"model.label_smoothing is {label_smoothing}; it must be in [0, 1)")
        weights = None
        if isinstance(class_weights, str):
            if class_weights != "balanced":
                raise UserError(f"model.class_weights is '{class_weights}'; give 'balanced' or a list of numbers")
        elif class_weights is not None:
            weights = torch.as_tensor(class_weights, dtype=torch.float32)
            if weights.shape != (n_classes,):
                raise UserError(f"model.class_weights has {len(class_weights)} values for {n_classes} classes")
        self.n_classes = n_classes
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.lr_scheduler_interval, self.lr_scheduler_monitor = lr_scheduler_interval, lr_scheduler_monitor
        self.label_smoothing, self.class_weights, self.l2 = label_smoothing, class_weights, l2 or {}
        self.start_from = start_from
        self.loss_weights: Tensor | None
        self.register_buffer("loss_weights", weights, persistent=False)
        self._totals: dict[str, EpochTotals] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this attribute some 40 times per step, and nn.Module's check for parameters and submodules
        # took 7 % of a small network's training time.
        if name == HOOK_NAME:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # -- loss -----------------------------------------------------------------------------------------------

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The training loss without its L2 term, the mean over the batch: a scalar.

        Args:
            outputs: float (b, n_classes), returned by `forward`.
            labels: int64 (b,).
        """
        if not self.returns_log_probabilities:
            return F.cross_entropy(outputs, labels, weight=self.loss_weights, label_smoothing=self.label_smoothing)
        likelihood = F.nll_loss(outputs, labels, weight=self.loss_weights)
        if not self.label_smoothing:
            return likelihood
        weights = torch.ones_like(outputs[0]) if self.loss_weights is None else self.loss_weights
        uniform = -(outputs * weights).sum() / (self.n_classes * weights[labels].sum())
        return (1 - self.label_smoothing) * likelihood + self.label_smoothing * uniform

    def l2_penalty(self) -> Tensor:
        """The L2 term of the training loss: a scalar.

        Raises:
            UserError: a pattern of `l2` matches no parameter.
        """
        named = dict(self.named_parameters())
        total = torch.zeros((), device=self.device)
        for pattern, coefficient in self.l2.items():
            for name in _matching(pattern, named):
                total = total + coefficient * named[name].square().sum()
        return total

    def load_start(self) -> None:
        """Load the weights of `start_from`, if it is set.

        Raises:
            UserError: the checkpoint cannot be read, or is of another network.
        """
        if self.start_from is None:
            return
        path = user_path(self.start_from, "model.start_from")
        try:
            weights = read_checkpoint(path, self.device)["state_dict"]
        except UserError as error:
            raise UserError(f"model.start_from: {error}") from None
        except Exception as error:  # missing, damaged, or with pickled objects, which are never loaded
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise UserError(f"model.start_from: cannot read the checkpoint {path} ({reason})") from None
        try:
            self.load_state_dict(weights)
        except (RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"model.start_from: {path} is of another network: {reason}") from None

    # -- Lightning's hooks ----------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Load `start_from`, compute balanced class weights, refuse L2 patterns that match no parameter."""
        self.l2_penalty()
        if stage == "fit":
            self.load_start()  # a resumed fold's own weights are loaded later and replace these
        if stage == "fit" and self.class_weights == "balanced":
            datamodule = getattr(self.trainer, "datamodule", None)
            if datamodule is None or not hasattr(datamodule, "class_counts"):
                raise UserError("class_weights 'balanced' needs a data module of fmnist_cv, which counts the classes")
            self.loss_weights = self.balanced_weights(datamodule.class_counts()).to(self.device)

    def balanced_weights(self, counts: Tensor) -> Tensor:
        """float32 (n_classes,): loss weights inversely proportional to the classes' frequencies.

        Args:
            counts: int64 (n_classes,), images per class in the training part.

        Raises:
            UserError: a class has no image.
        """
        if len(counts) != self.n_classes or not counts.all():
            raise UserError(f"class_weights 'balanced': the training part has {counts.tolist()} images per class")
        return counts.sum() / (self.n_classes * counts.float())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch: images float32 (b, c, h, w), labels int64 (b,)."""
        loss = self._step("train", batch)
        return loss + self.l2_penalty() if self.l2 else loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Collect one validation batch."""
        self._step("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Collect one test batch."""
        self._step("test", batch)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Probabilities float32 (b, n_classes)."""
        outputs: Tensor = self(batch[0])
        return outputs.float().softmax(1)  # of log-probabilities it gives the probabilities themselves

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training loss (with smoothing and weights, without the L2 term) and accuracy."""
        self._log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Log validation loss and accuracy."""
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log test loss and accuracy."""
        self._log_epoch("test")

    def configure_optimizers(self) -> Any:
        """Create optimiser and scheduler.

        Raises:
            UserError: the scheduler's length is left out, and only time limits the training.
            RuntimeError: the scheduler's length is left out, and there is no Trainer.
        """
        optimizer, interval = self.optimizer(self.parameters()), self.lr_scheduler_interval
        if self.lr_scheduler is None:
            return optimizer
        length = None
        if needs_length(self.lr_scheduler):
            if math.isinf(training := training_length(self.trainer, interval)):
                raise UserError(
                    "model.lr_scheduler leaves its length out, which is then the training's, but only time "
                    "limits that; set trainer.max_epochs or trainer.max_steps"
                )
            length = int(training)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": make_scheduler(self.lr_scheduler, optimizer, length),
                "interval": interval,
                "monitor": self.lr_scheduler_monitor,
            },
        }

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Drop the gradients as `optimizer.zero_grad()` does, without a profiler record in each step."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    # -- metrics --------------------------------------------------------------------------------------------

    def _step(self, stage: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        outputs = self(images)
        loss = self.loss(outputs, labels)
        if stage not in self._totals:
            self._totals[stage] = EpochTotals(self.device)
        self._totals[stage].add(loss.detach(), (outputs.detach().argmax(1) == labels).sum(), len(labels))
        return loss

    def _log_epoch(self, stage: str) -> None:
        if stage not in self._totals:  # a subclass overrides the step
            return
        loss, accuracy = self._totals.pop(stage).means()
        self.log_dict({f"{stage}/loss": loss, f"{stage}/accuracy": accuracy, "step": float(self.current_epoch)})


class EpochTotals:
    """Sums over an epoch's images, updated in place: a small tensor kept per step would fragment the heap between the
    freed activations, and memory would grow by half.

    Args:
        device: of the sums.
    """

    def __init__(self, device: torch.device) -> None:
        self._loss, self._correct = torch.zeros(2, dtype=torch.float32, device=device).unbind()
        self._n = 0

    def add(self, loss: Tensor, correct: Tensor, n: int) -> None:
        """Add a batch: its mean loss (scalar), its number of correct predictions (scalar), its number of images."""
        self._loss.add_(loss, alpha=n)
        self._correct.add_(correct)
        self._n += n

    def means(self) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy: float32 scalars on the device."""
        return self._loss / self._n, self._correct / self._n


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise UserError(f"model.l2 names '{pattern}', which matches no parameter; there are {', '.join(names)}")
    return found
