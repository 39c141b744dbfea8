"""What the peer scripts share: command line, data files, a stopwatch and the JSON that each one writes.

Nothing in here decides how a peer trains, so each peer stays readable as one script.
"""

import argparse
import gzip
import json
import os
import platform
import resource
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

IMPORTED_AT = time.monotonic()
BATCH_SIZE = {"sharifi-cnn": 1000, "patel-ann": 64}
FILES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


def command_line(description):
    """Return the parser with the options that every peer understands."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--system", choices=sorted(BATCH_SIZE), required=True)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--workers", type=int, help="DataLoader workers (default: the fastest for the system)")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--max-folds", type=int, help="stop after this many folds (for short runs)")
    return parser


def data_folder():
    """Return the folder with the four .gz files, found through FMNIST_CV_DATA."""
    if "FMNIST_CV_DATA" not in os.environ:
        raise SystemExit("set FMNIST_CV_DATA to the folder that holds the Fashion-MNIST .gz files")
    root = Path(os.environ["FMNIST_CV_DATA"])
    for folder in (root, root / "fashion-mnist"):
        if all((folder / f"{name}.gz").is_file() for name in FILES):
            return folder
    raise SystemExit("FMNIST_CV_DATA has no Fashion-MNIST .gz files, flat or in fashion-mnist/")


def torchvision_root(scratch):
    """Extract the files under `scratch` as torchvision expects them and return that root."""
    raw = Path(scratch) / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if not (raw / name).exists():
            with gzip.open(data_folder() / f"{name}.gz") as source, open(raw / name, "wb") as target:
                shutil.copyfileobj(source, target)
    return scratch


def training_arrays():
    """Return the 60,000 training images (uint8, n x 28 x 28) and their labels."""
    folder = data_folder()
    with gzip.open(folder / f"{FILES[0]}.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / f"{FILES[1]}.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images, labels


def import_torchvision():
    """Import torchvision, also where its compiled operators do not load.

    The wheel on PyPI is built for CUDA; with a CPU-only torch its operators are absent and the import
    fails on `torchvision::nms`.  Declaring the two operators (unused here) is enough.  lightning imports
    torchvision too, through torchmetrics, so call this before either.
    """
    try:
        import torchvision
    except RuntimeError:
        import torch

        import_torchvision.library = torch.library.Library("torchvision", "DEF")  # kept: else it is undone
        for name in ("nms", "qnms"):
            import_torchvision.library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


class Stopwatch:
    """Adds up the seconds of training, one entry for each epoch of each fold."""

    def __init__(self):
        self.folds = []

    def new_fold(self):
        self.folds.append([])

    def new_epoch(self):
        self.folds[-1].append(0.0)
        self.resume()

    def resume(self):
        self._since = time.perf_counter()

    def pause(self):
        self.folds[-1][-1] += time.perf_counter() - self._since

    @property
    def seconds(self):
        return sum(map(sum, self.folds))


def process_seconds():
    """Return the seconds since this process started (since this module was imported where /proc is absent)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    except OSError:
        return time.monotonic() - IMPORTED_AT
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


def write_report(options, peer, stopwatch, images_trained, val_accuracy, packages, settings):
    """Write the measurements of one run to `options.out`."""
    report = {
        "peer": peer,
        "system": options.system,
        "folds": options.folds,
        "folds_run": len(val_accuracy),
        "epochs": options.epochs,
        "batch_size": BATCH_SIZE[options.system],
        "images_trained": images_trained,
        "train_seconds": round(stopwatch.seconds, 3),
        "images_per_second": round(images_trained / stopwatch.seconds, 1),
        "epoch_seconds": [[round(seconds, 3) for seconds in fold] for fold in stopwatch.folds],
        "wall_seconds": round(process_seconds(), 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "val_accuracy": [round(float(accuracy), 5) for accuracy in val_accuracy],
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "settings": settings,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))
