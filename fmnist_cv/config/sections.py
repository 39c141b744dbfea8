"""The sections of an experiment, and what is known of its keys without torch and Lightning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

SECTIONS = ("name", "seed", "log_dir", "synthetic_fallback", "report", "cv", "selection", "model", "data", "trainer")

OWN_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")  # that ImageClassifier logs

# Trainer options that the engine sets itself, and why; giving one is refused instead of ignored.
RESERVED_TRAINER_OPTIONS = {
    "barebones": "a fold needs its callbacks and logger",
    "default_root_dir": "runs are written under --log_dir",
    "enable_checkpointing": "each fold keeps its last and best checkpoint; add a ModelCheckpoint callback for more",
    "enable_model_summary": "the model is described once for all folds",
    "enable_progress_bar": "one display shows all folds",
    "fast_dev_run": "it would leave no results; use --trainer.max_epochs 1 --trainer.limit_train_batches 2",
    "limit_predict_batches": "every held-out image must be scored",
    "limit_test_batches": "every test image must be scored",
    "num_nodes": "spread folds over machines with --cv.fold",
    "num_sanity_val_steps": "the engine scores the validation images itself",
    "overfit_batches": "it replaces the index batches' shuffling; use --trainer.limit_train_batches",
    "strategy": "each fold runs on one device",
    "use_distributed_sampler": "each fold runs on one device",
    "sync_batchnorm": "each fold runs on one device",
}


# The other arguments of Lightning's Trainer: a misspelt option is refused without importing Lightning.
TRAINER_OPTIONS = (
    "accelerator",
    "accumulate_grad_batches",
    "benchmark",
    "callbacks",
    "check_val_every_n_epoch",
    "detect_anomaly",
    "deterministic",
    "devices",
    "enable_autolog_hparams",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "inference_mode",
    "limit_train_batches",
    "limit_val_batches",
    "log_every_n_steps",
    "logger",
    "max_epochs",
    "max_steps",
    "max_time",
    "min_epochs",
    "min_steps",
    "model_registry",
    "plugins",
    "precision",
    "profiler",
    "reload_dataloaders_every_n_epochs",
    "val_check_interval",
)


# Keys that suggestions are made from for misspelt ones: of ImageClassifier, its optimizer, and ArrayDataModule.
PART_KEYS = (
    "model.n_classes",
    "model.optimizer",
    "model.optimizer.class_path",
    "model.optimizer.init_args",
    "model.optimizer.init_args.lr",
    "model.optimizer.init_args.betas",
    "model.optimizer.init_args.eps",
    "model.optimizer.init_args.weight_decay",
    "model.lr_scheduler",
    "model.lr_scheduler_interval",
    "model.lr_scheduler_monitor",
    "model.label_smoothing",
    "model.class_weights",
    "model.l2",
    "model.start_from",
    "data.path",
    "data.images",
    "data.labels",
    "data.class_names",
    "data.groups",
    "data.test_images",
    "data.test_labels",
    "data.batch_size",
    "data.scaling",
    "data.augment",
    "data.eval_batch_size",
    "data.drop_last",
    "data.leave_out",
    "data.duplicates",
    "data.use_validation",
)


# Headings of the help, by section.
TITLES = {
    "cv": "splits and folds",
    "selection": "which epoch is the best, and when to stop",
    "model": "model: any LightningModule or nn.Module, by its path",
    "data": "data: where the images come from",
    "trainer": "trainer: arguments of Lightning's Trainer",
}

# What the short help shows of the parts that come from elsewhere: option, its value's name, its meaning.
COMMON = {
    "model": {
        "model": ("CLASS", "fmnist_cv.models.BatchNormCNN, my_module.MyNet, torchvision.models.resnet18, …"),
        "model.ARGUMENT": (
            "VALUE",
            "an argument of that class or function, e.g. --model.dropout 0.2; --model.help CLASS lists them",
        ),
    },
    "data": {
        "data": ("DATA", "photos/, manifest.csv, arrays.npz, or a class: fmnist_cv.data.FashionMNISTDataModule, …"),
        "data.ARGUMENT": (
            "VALUE",
            "an argument of that class, e.g. --data.batch_size 256; --data.help CLASS lists them",
        ),
    },
    "trainer": {
        "trainer.max_epochs": ("N", "epochs of each fold"),
        "trainer.accelerator": ("NAME", "cpu, gpu, mps or auto"),
        "trainer.devices": ("DEVICES", "a count, or a list of indices: one fold at a time on each"),
        "trainer.precision": ("NAME", "32-true, bf16-mixed, …; by default bf16-mixed where the device is fast at it"),
        "trainer.limit_train_batches": ("N", "batches of each epoch, for a quick trial"),
    },
}


# What the sections `data` and `model` take in place of class_path and init_args.
DATA_WAYS = (
    "give a folder with one folder of images per class, a .csv, .tsv or .parquet file that lists images, an .npz file of "
    "arrays, or the path of a data module class, e.g. fmnist_cv.data.FashionMNISTDataModule, or of a function that makes a data set "
    "with and without augmentation"
)
MODEL_WAYS = (
    "give the path of a LightningModule or nn.Module class, or of a function that returns a network, e.g. "
    "torchvision.models.resnet18"
)


@dataclass
class CrossValidationSection:
    """How the training images are split and the folds are run.

    Attributes:
        n_splits: k; 3, 5 and 10 are usual. By default 5, or as many as splitter, file or data give.
        n_repeats: repeat the cross-validation this many times, with new splits. By default 1, or as often as is given.
        stratify: keep the proportions of the classes in every part; false for plain shuffled splits.
        holdout: a single split instead of k folds: a fraction (0.2), a count (5000), or the first n ("first:5000").
        splitter: a splitter of scikit-learn in place of the k-fold, fed with labels and groups: its class path and init_args,
            or the name of one of sklearn.model_selection, e.g. LeaveOneGroupOut. One that shuffles is seeded with `seed`.
        splits: the folds, drawn by somebody else, in place of the k-fold: a CSV file with the columns name (or index) and fold,
            where -1 is for images that all folds train on; nnU-Net's JSON of train and val names; or "data", the folds that
            the data give (a column of a manifest), which is the default where they give some.
        test: a test set that is cut off from the training images before any fold: a fraction of each class (0.2), as nearly
            as whole groups allow, or a list of names of groups. The images alone decide, so that it is the same with each seed;
            for data without a test set.
        inner_holdout: fraction of each training part that is held out to choose the epoch, so that the validation fold
            chooses nothing; the headline is then the score of the best epoch.
        train_size: train on a sample of this many images of each training part, for learning curves; null for all.
        workers: folds run side by side; by default one per GPU, or one per CPU core.
        fold: run only this fold, counted over all repeats, in the run named by --run; the last fold to finish
            writes the summary.
    """

    n_splits: int | None = None
    n_repeats: int | None = None
    stratify: bool = True
    holdout: float | int | str | None = None
    splitter: str | dict[str, Any] | None = None
    splits: str | None = None
    test: float | list[str | int] | None = None
    inner_holdout: float | None = None
    train_size: int | None = None
    workers: int | None = None
    fold: int | None = None


@dataclass
class SelectionSection:
    """Which epoch is the best, and when to stop.

    Attributes:
        monitor: the metric that decides: val/accuracy, val/loss, or one that the model logs. `val` is the held-out
            fold, or the inner hold-out where cv.inner_holdout is set.
        mode: "max" or "min", whether a higher or a lower value is better; by default "min" for a loss, else "max".
        patience: stop after this many epochs without improvement; null trains all epochs.
        min_delta: the least change that counts as improvement for the patience.
    """

    monitor: str = "val/accuracy"
    mode: Literal["max", "min"] | None = None
    patience: int | None = None
    min_delta: float = 0.0
