"""Epochs on folders of photos, compared with a plain script on torchvision's ImageFolder, in one call.

Both train the same network on the same images of the same fold, with the same size, horizontal flips, batch size, threads and
float32. `first` is the first epoch with all that must be decoded before it can end, `steady` the median of the others, and
`ready` the time that a second run needs until its images are there.

    python experiments/speed/photos.py --products FOLDER   # of Fashion Product Images (Small): styles.csv and images/

Without --products only the made-up photos of 500x400 pixels are used. The results file is written anew.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from benchmark import git_commit, machine
from PIL import Image

HERE = Path(__file__).parent
THREADS = 2  # what a single fold has on two cores
BATCH_SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=Path, help="folder of Fashion Product Images")
    parser.add_argument("--n_products", type=int, default=4000, help="how many of its photos to use")
    parser.add_argument("--n_made", type=int, default=1500, help="photos of 500x400 pixels to make up")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "photos.json")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "commit": git_commit(), "threads": THREADS, "runs": []}
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder, size in photo_sets(options, Path(scratch)):
            for turn in range(options.rounds):
                programs = (ours, plain) if turn % 2 == 0 else (plain, ours)
                for program in programs:
                    times = program(folder, size, options.epochs, Path(scratch))
                    results["runs"].append({"set": name, "round": turn, "program": program.__name__, **times})
                    print(name, turn, program.__name__, json.dumps(times), flush=True)
    results["table"] = table(results["runs"])
    print("\n" + results["table"])
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def photo_sets(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Path, int]]:
    """(name, folder with one folder per class, size to which both programs resize)."""
    if options.products is not None:
        yield f"{options.n_products} product photos, 60x80", link_products(options, scratch / "products"), 96
    yield f"{options.n_made} made-up photos, 500x400", make_photos(options.n_made, scratch / "made"), 96


def link_products(options: argparse.Namespace, folder: Path) -> Path:
    """A folder per category of the products, with links to their photos."""
    styles = pd.read_csv(options.products / "styles.csv", on_bad_lines="skip").drop_duplicates("id")
    styles = styles[styles.groupby("masterCategory")["id"].transform("size") > 100]
    n_linked = 0
    for product, category in zip(styles["id"], styles["masterCategory"], strict=True):
        photo = options.products / "images" / f"{product}.jpg"
        if photo.is_file() and n_linked < options.n_products:
            link = folder / category / photo.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(photo)
            n_linked += 1
    return folder


def make_photos(n: int, folder: Path) -> Path:
    """JPEG files of smooth noise, whose size on disk is that of photos."""
    rng = np.random.default_rng(0)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (50, 63, 3), dtype=np.uint8))
        photo = np.asarray(coarse.resize((500, 400), Image.Resampling.BICUBIC)).astype(np.int16)
        photo += rng.normal(0, 8, photo.shape).astype(np.int16)
        target = folder / f"class_{i % 5}" / f"{i:05}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(photo, 0, 255).astype(np.uint8)).save(target, quality=90)
    return folder


def ours(folder: Path, size: int, epochs: int, scratch: Path) -> dict[str, Any]:
    """A hold-out run with an empty cache, then the start of a second one with a full cache."""
    program = [sys.executable, str(HERE / "photos_ours.py"), str(folder), str(size), str(BATCH_SIZE)]
    with tempfile.TemporaryDirectory(dir=scratch) as cache:
        trained, started = (
            json.loads(run([*program, str(n)], FMNIST_CV_CACHE=cache).splitlines()[-1]) for n in (epochs, 0)
        )
    if trained.pop("threads") != THREADS:
        raise SystemExit(f"the fold did not have {THREADS} threads; run this on as many cores")
    return {**trained, "ready": started["images_after"]}


def plain(folder: Path, size: int, epochs: int, scratch: Path) -> dict[str, Any]:
    """The plain script on the images that our fold trains on."""
    n = sum(1 for path in folder.rglob("*.jpg"))
    train = np.sort(
        np.random.default_rng(0).permutation(n)[: n - round(0.2 * n)]
    )  # as many as ours; which ones is no matter
    (scratch / "train.json").write_text(json.dumps(train.tolist()), encoding="utf-8")
    numbers = {"size": size, "epochs": epochs, "batch_size": BATCH_SIZE, "threads": THREADS}
    options = [f"--{name}={value}" for name, value in numbers.items()]
    printed = run(
        [sys.executable, str(HERE / "peer_photos.py"), str(folder), f"--train={scratch / 'train.json'}", *options]
    )
    seconds = json.loads(printed.splitlines()[-1])
    return {
        "n_train": seconds["n_train"],
        "first": seconds["epochs"][0],
        "steady": statistics.median(seconds["epochs"][1:]),
    }


def run(command: list[str], **variables: str) -> str:
    """The output of a program; its errors are shown."""
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False, env=os.environ | variables)
    if done.returncode:
        raise SystemExit(f"{command[1]} ended with {done.returncode}")
    return done.stdout


def table(runs: list[dict[str, Any]]) -> str:
    """Medians over the rounds, and how many times ours is faster."""
    frame = pd.DataFrame(runs)
    lines = ["| photos | epoch | plain script, s | fmnist_cv, s | theirs / ours |", "|---|---|---:|---:|---:|"]
    for name, here in frame.groupby("set", sort=False):
        medians = here.groupby("program")[["first", "steady"]].median()
        for epoch in ("first", "steady"):
            theirs, mine = medians.loc["plain", epoch], medians.loc["ours", epoch]
            lines.append(f"| {name} | {epoch} | {theirs:.1f} | {mine:.1f} | {theirs / mine:.2f} |")
    ready = frame.loc[frame["program"] == "ours", "ready"].median()
    return "\n".join([*lines, "", f"A second run has its images after {ready:.2f} s (median)."])


if __name__ == "__main__":
    main()
