"""Training on image files: fmnist_cv against a plain PyTorch script, in one call.

Both train the same network on the same photos, size, flips, float32 and threads, 80 % of the images for training and 20 % for
validation after each epoch. The plain script is written as its users would: torchvision's ImageFolder, which decodes each photo in
each epoch, and a DataLoader with 2 workers. Two data sets: the 60x80 product photos in five classes, at their own size, and made-up
JPEGs of 500x400, resized to 96. The programs are processes of their own, one after the other, in rounds of alternating order.

    python experiments/speed/photos.py --products FOLDER_WITH_styles.csv_AND_images --out photos.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from peer_common import import_torchvision, process_seconds
from PIL import Image

EPOCHS, BATCH_SIZE, SEED = 4, 64, 0
CLASSES = ("Tshirts", "Shirts", "Casual Shoes", "Watches", "Handbags")
SIZES = {"products": (80, 60), "made-up": (96, 96)}


def main() -> None:
    options = parse_options()
    if options.program:
        import_torchvision()
        import torch

        torch.set_num_threads(options.threads)
        {"plain": plain, "ours": ours}[options.program](options.data, SIZES[options.name], options.out)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder, results = Path(scratch), dict[str, Any]()
        data = {"made-up": made_up(folder / "made-up", options.made_up)}
        if options.products is not None:
            data["products"] = products(folder / "products", options.products, options.most)
        for name, root in data.items():
            runs: dict[str, list[dict[str, Any]]] = {"plain": [], "ours": []}
            for turn in range(options.rounds):
                for program in ("plain", "ours") if turn % 2 == 0 else ("ours", "plain"):
                    with tempfile.TemporaryDirectory(dir=folder) as own:  # an empty cache in each round
                        runs[program].append(run(program, name, root, Path(own), options.threads))
            results[name] = {"images": sum(1 for _ in root.glob("*/*")), "runs": runs, **summary(runs)}
            print(f"{name}: {json.dumps({key: value for key, value in results[name].items() if key != 'runs'})}")
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=Path, help="folder of the product photos, with styles.csv and images/")
    parser.add_argument("--most", type=int, default=2000, help="product photos, at most (default: %(default)s)")
    parser.add_argument("--made-up", type=int, default=1500, help="made-up JPEGs (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each program's training (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    for name in ("--program", "--data", "--name"):  # of the processes that this script starts
        parser.add_argument(name, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(program: str, name: str, root: Path, own: Path, threads: int) -> dict[str, Any]:
    """One program in a process of its own, with a cache of its own; ours a second time for what it is then."""
    command = [
        sys.executable,
        __file__,
        "--program",
        program,
        "--data",
        str(root),
        "--name",
        name,
        "--threads",
        str(threads),
        "--out",
    ]
    environment = os.environ | {"FMNIST_CV_CACHE": str(own / "cache")}
    measured = []
    for i in range(2 if program == "ours" else 1):
        out = own / f"{i}.json"
        subprocess.run([*command, str(out)], check=True, env=environment, stdout=subprocess.DEVNULL)
        measured.append(json.loads(out.read_text(encoding="utf-8")))
    return measured[0] if len(measured) == 1 else {**measured[0], "again": measured[1]}


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Seconds, medians over the rounds, and how much longer the plain script takes."""
    first = {program: statistics.median(run["first_epoch"] for run in found) for program, found in runs.items()}
    steady = {
        program: statistics.median(statistics.median(run["epochs"][1:]) for run in found)
        for program, found in runs.items()
    }
    return {
        "first epoch with decoding, plain": first["plain"],
        "first epoch with decoding, ours": first["ours"],
        "first epoch, plain / ours": round(first["plain"] / first["ours"], 2),
        "steady epoch, plain": steady["plain"],
        "steady epoch, ours": steady["ours"],
        "steady epoch, plain / ours": round(steady["plain"] / steady["ours"], 2),
        "data ready in a second run": statistics.median(run["again"]["data_ready"] for run in runs["ours"]),
    }


# -- the two programs -----------------------------------------------------------------------------------------


def network(size: tuple[int, int]) -> Any:
    """A small network of convolutions, the same for both."""
    from torch import nn

    layers, channels = list[nn.Module](), 3
    for n in (16, 32, 64):
        layers += [nn.Conv2d(channels, n, 3, padding=1), nn.BatchNorm2d(n), nn.ReLU(), nn.MaxPool2d(2)]
        channels = n
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CLASSES)))


def plain(root: str, size: tuple[int, int], out: Path) -> None:
    """As one writes it: ImageFolder, random_split, DataLoader."""
    torchvision = import_torchvision()
    import torch
    from torch.utils.data import DataLoader, random_split
    from torchvision import transforms

    torch.manual_seed(SEED)
    began = time.perf_counter()
    transform = transforms.Compose([transforms.Resize(size), transforms.RandomHorizontalFlip(), transforms.ToTensor()])
    data = torchvision.datasets.ImageFolder(root, transform)
    parts = random_split(data, [0.8, 0.2])
    train, validation = (DataLoader(part, BATCH_SIZE, shuffle=i == 0, num_workers=2) for i, part in enumerate(parts))
    report(out, size, began, lambda: train, lambda images: images, lambda: validation)


def ours(root: str, size: tuple[int, int], out: Path) -> None:
    """The package's data module in the same loop: decoded once, flipped by kornia."""
    import_torchvision()
    import torch
    from kornia.augmentation import RandomHorizontalFlip

    from fmnist_cv.data import ImageFolderDataModule

    torch.manual_seed(SEED)
    began = time.perf_counter()
    data = ImageFolderDataModule(
        root,
        image_size=[*size],
        batch_size=BATCH_SIZE,
        eval_batch_size=BATCH_SIZE,
        augment=[RandomHorizontalFlip()],
        holdout=0.2,
    )
    data.setup("fit")
    report(
        out,
        size,
        began,
        data.train_dataloader,
        lambda images: data.prepare(images, training=True),
        data.val_dataloader,
        data.prepare,
    )


def report(
    out: Path, size: tuple[int, int], began: float, train: Any, prepare: Any, validation: Any, scale: Any = None
) -> None:
    """Train and validate for some epochs, and write the seconds."""
    import torch

    ready = time.perf_counter() - began
    model = network(size)
    optimizer = torch.optim.Adam(model.parameters())
    epochs, correct, n, first = list[float](), 0, 0, 0.0
    for epoch in range(EPOCHS):
        start, correct, n = time.perf_counter(), 0, 0
        model.train()
        for images, labels in train():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(prepare(images)), labels).backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            for images, labels in validation():
                correct += int((model(images if scale is None else scale(images)).argmax(1) == labels).sum())
                n += len(labels)
        epochs.append(round(time.perf_counter() - start, 3))
        if epoch == 0:
            first = round(process_seconds(), 3)
    found = {"data_ready": round(ready, 3), "first_epoch": first, "epochs": epochs, "accuracy": round(correct / n, 4)}
    out.write_text(json.dumps(found), encoding="utf-8")


# -- the data -------------------------------------------------------------------------------------------------


def made_up(root: Path, n: int) -> Path:
    """JPEGs of 500x400 in five classes, told apart by the coarseness of their pattern."""
    rng = np.random.default_rng(SEED)
    for i in range(n):
        label = i % len(CLASSES)
        (root / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        grain = rng.integers(0, 256, (8 * (label + 1), 10 * (label + 1), 3), dtype=np.uint8)
        photo = Image.fromarray(grain).resize((500, 400), Image.Resampling.BICUBIC)
        photo.save(root / CLASSES[label] / f"{i}.jpg", quality=90)
    return root


def products(root: Path, source: Path, most: int) -> Path:
    """Links to product photos of the five classes."""
    table = pd.read_csv(source / "styles.csv", usecols=["id", "articleType"], on_bad_lines="skip")
    rows = [*table[table["articleType"].isin(CLASSES)].itertuples(index=False, name=None)]
    random.Random(SEED).shuffle(rows)
    n = 0
    for image, label in rows:
        photo = (source / "images" / f"{image}.jpg").resolve()
        if photo.is_file() and n < most:
            (root / label).mkdir(parents=True, exist_ok=True)
            (root / label / photo.name).symlink_to(photo)
            n += 1
    return root


if __name__ == "__main__":
    main()
