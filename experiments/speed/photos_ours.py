"""Our side of the photo benchmark: one hold-out fold on a folder of photos; with 0 epochs only its images.

Prints seconds as JSON in the last line. The cache is in $FMNIST_CV_CACHE.
"""

import json
import statistics
import sys
import tempfile
import time
from typing import Any

from fmnist_cv import cross_validate
from fmnist_cv.data import ImageFolderDataModule

SETTINGS = {
    "name": "photos",
    "cv.holdout": 0.2,
    "cv.workers": 1,
    "report": False,
    "trainer.logger": False,
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",
}


def main(folder: str, size: int, batch_size: int, epochs: int) -> dict[str, Any]:
    """Seconds until the images are there, and of the epochs."""
    began = time.perf_counter()
    images = ImageFolderDataModule(root=folder, image_size=size).train_images
    images.pixels(images.labels[:1])
    images_after = time.perf_counter() - began
    if epochs == 0:
        return {"images_after": images_after}
    flip = {"class_path": "kornia.augmentation.RandomHorizontalFlip"}
    data = {"root": folder, "image_size": size, "batch_size": batch_size, "augment": [flip]}
    with tempfile.TemporaryDirectory() as logs:
        result = cross_validate(
            None,
            {**SETTINGS, "trainer.max_epochs": epochs, "log_dir": logs},
            model={"class_path": "fmnist_cv.models.BatchNormCNN"},
            data={"class_path": "fmnist_cv.data.ImageFolderDataModule", "init_args": data},
        )
        fold = json.loads((result.folds[0].path / "metrics.json").read_text(encoding="utf-8"))
    seconds = [interval[1] - interval[0] for interval in fold["times"]["train_intervals"]]
    return {
        "n_train": fold["n_train"],
        "first": images_after + seconds[0],
        "steady": statistics.median(seconds[1:]),
        "decoding": images_after,
        "threads": fold["threads"],
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], *map(int, sys.argv[2:]))))
