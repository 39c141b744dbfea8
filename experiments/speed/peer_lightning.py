"""Peer (c) of the speed benchmark: k-fold cross-validation in plain Lightning.

The same torchvision dataset, folds and loaders as peer (b), with the loop given to Lightning as its own
documentation shows: a LightningModule that logs with self.log, and one Trainer for each fold with a
CSVLogger.  Progress bar, model summary and checkpoints are off, since no other peer writes them.
"""

import logging
import tempfile

import torch
from peer_common import (
    BATCH_SIZE,
    Stopwatch,
    command_line,
    import_torchvision,
    torchvision_root,
    write_report,
)
from sklearn.model_selection import KFold
from torch import nn
from torch.utils.data import DataLoader, Subset

torchvision = import_torchvision()  # before lightning, which imports it through torchmetrics

import lightning as L  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402
from torchmetrics.classification import MulticlassAccuracy  # noqa: E402

WORKERS = {"sharifi-cnn": 0, "patel-ann": 0}


def sharifi_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 32, kernel_size=3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, kernel_size=3),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 6 * 6, 600),
        nn.Dropout(0.25),
        nn.Linear(600, 120),
        nn.Linear(120, 10),
    )


def patel_ann():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 128),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(64, 10),
        nn.LogSoftmax(dim=1),
    )


class Classifier(L.LightningModule):
    def __init__(self, system):
        super().__init__()
        self.system = system
        self.model = sharifi_cnn() if system == "sharifi-cnn" else patel_ann()
        self.criterion = nn.CrossEntropyLoss() if system == "sharifi-cnn" else nn.NLLLoss()
        self.val_acc = MulticlassAccuracy(num_classes=10, average="micro")

    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = self.criterion(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        outputs = self(images)
        self.val_acc(outputs, labels)
        self.log("val_loss", self.criterion(outputs, labels))
        self.log("val_acc", self.val_acc)

    def configure_optimizers(self):
        if self.system == "sharifi-cnn":
            return torch.optim.Adam(self.parameters(), lr=1e-3, weight_decay=1e-5)
        return torch.optim.Adam(self.parameters(), lr=3e-3)


class TrainingTime(L.Callback):
    """Times the training part of each epoch; Lightning validates inside the epoch, so that is paused."""

    def __init__(self, stopwatch):
        self.stopwatch = stopwatch

    def on_train_epoch_start(self, trainer, module):
        self.stopwatch.new_epoch()

    def on_validation_start(self, trainer, module):
        if not trainer.sanity_checking:
            self.stopwatch.pause()

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.stopwatch.resume()

    def on_train_epoch_end(self, trainer, module):
        self.stopwatch.pause()


def main():
    options = command_line(__doc__.splitlines()[0]).parse_args()
    workers = WORKERS[options.system] if options.workers is None else options.workers
    batch_size = BATCH_SIZE[options.system]
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    L.seed_everything(0, verbose=False)
    stopwatch, images_trained, val_accuracy = Stopwatch(), 0, []

    with tempfile.TemporaryDirectory() as scratch:
        dataset = torchvision.datasets.FashionMNIST(
            torchvision_root(scratch), train=True, transform=torchvision.transforms.ToTensor()
        )
        kfold = KFold(n_splits=options.folds, shuffle=True, random_state=0)
        for fold, (train_index, val_index) in enumerate(kfold.split(dataset.data)):
            if fold == options.max_folds:
                break
            # persistent_workers keeps the workers from one epoch to the next (allowed only when there are any)
            loader_options = {"batch_size": batch_size, "num_workers": workers, "persistent_workers": workers > 0}
            train_loader = DataLoader(Subset(dataset, train_index), shuffle=True, **loader_options)
            val_loader = DataLoader(Subset(dataset, val_index), **loader_options)

            stopwatch.new_fold()
            trainer = L.Trainer(
                max_epochs=options.epochs,
                accelerator="cpu",
                logger=CSVLogger(scratch, name=f"fold{fold}"),
                callbacks=[TrainingTime(stopwatch)],
                enable_progress_bar=False,
                enable_model_summary=False,
                enable_checkpointing=False,
            )
            trainer.fit(Classifier(options.system), train_loader, val_loader)
            images_trained += len(train_index) * options.epochs
            val_accuracy.append(trainer.callback_metrics["val_acc"].item())
            print(f"fold {fold}: val_acc={val_accuracy[-1]:.4f}", flush=True)

    settings = {"workers": workers, "threads": torch.get_num_threads(), "precision": "float32"}
    packages = ["lightning", "torchmetrics", "torch", "torchvision", "scikit-learn", "numpy"]
    write_report(options, "lightning", stopwatch, images_trained, val_accuracy, packages, settings)


if __name__ == "__main__":
    main()
