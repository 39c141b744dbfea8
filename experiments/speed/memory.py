"""Memory of a fold's own process on a made-up set of photos whose pixels are larger than that: 6 GB, in one call.

The set is trained for an epoch and scored in full. Anonymous memory (Linux: RssAnon) leaves out pages of mapped files, which the
system takes back when it needs them. The folder of temporary files must have 7 GB left.

    python experiments/speed/memory.py
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from benchmark import git_commit, machine
from PIL import Image

from fmnist_cv import cross_validate

HERE = Path(__file__).parent
SIDE = 96
DIFFERENT = 100  # photos; the others are links to them
N_CLASSES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=6, help="of decoded pixels")
    parser.add_argument("--out", type=Path, default=HERE / "memory.json")
    options = parser.parse_args()
    n = int(options.gigabytes * 1e9 / (3 * SIDE * SIDE))
    results: dict[str, Any] = {
        "machine": machine(),
        "commit": git_commit(),
        "n_images": n,
        "gigabytes": options.gigabytes,
    }
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["FMNIST_CV_CACHE"] = str(Path(scratch) / "cache")
        root = link_photos(n, Path(scratch) / "photos")
        peaks, done, began = Counter[int](), threading.Event(), time.perf_counter()
        watcher = threading.Thread(target=watch, args=(peaks, done))
        watcher.start()
        try:
            train(root, Path(scratch))
        finally:
            done.set()
            watcher.join()
    command = peaks.pop(os.getpid())
    results |= {"fold_mb": max(peaks.values()), "command_mb": command, "seconds": time.perf_counter() - began}
    print(json.dumps(results))
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def link_photos(n: int, root: Path) -> Path:
    """A folder per class, with n files that are few different JPEGs of noise."""
    rng = np.random.default_rng(0)
    for i in range(N_CLASSES):
        (root / f"class_{i}").mkdir(parents=True)
    for i in range(n):
        path = root / f"class_{i % N_CLASSES}" / f"{i:06}.jpg"
        if i < DIFFERENT:
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(path)
        else:
            path.hardlink_to(root / f"class_{i % N_CLASSES}" / f"{i % DIFFERENT:06}.jpg")
    return root


def train(root: Path, scratch: Path) -> None:
    """One epoch of a small network, in a process of its own, and all scores."""
    cross_validate(
        None,
        {"name": "memory", "log_dir": str(scratch / "logs"), "report": False, "trainer.logger": False},
        cv={"holdout": 0.2, "workers": 2},
        trainer={"max_epochs": 1, "accelerator": "cpu"},
        model={"class_path": "fmnist_cv.models.DenseNetwork", "init_args": {"hidden": [16]}},
        data={
            "class_path": "fmnist_cv.data.ImageFolderDataModule",
            "init_args": {"root": str(root), "duplicates": "keep"},
        },
    )


def watch(peaks: Counter[int], done: threading.Event) -> None:
    """The largest anonymous memory of this process and each below it, in MB, looked at twenty times a second."""
    here = psutil.Process()
    while not done.wait(0.05):
        for process in [here, *here.children(recursive=True)]:
            try:
                text = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            except OSError:  # ended meanwhile
                continue
            anonymous = next((line for line in text.splitlines() if line.startswith("RssAnon:")), "RssAnon: 0")
            peaks[process.pid] = max(peaks[process.pid], int(anonymous.split()[1]) // 1024)


if __name__ == "__main__":
    main()
