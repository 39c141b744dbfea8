"""The plain script of the photo benchmark: torchvision's ImageFolder, a DataLoader with two workers, a training loop.

Prints the seconds of each epoch as JSON in the last line.
"""

import argparse
import json
import time

import torch
from peer_common import import_torchvision
from torch import nn
from torch.utils.data import DataLoader, Subset

torchvision = import_torchvision()

from torchvision import datasets, transforms  # noqa: E402  after the preparation of the import


class Net(nn.Module):
    """The convolutional network of the benchmark, as `fmnist_cv.models.BatchNormCNN` builds it for these images."""

    def __init__(self, size, n_classes):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, kernel_size=3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, kernel_size=3),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        pooled = (size // 2 - 2) // 2
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * pooled * pooled, 600),
            nn.Dropout(0.25),
            nn.Linear(600, 120),
            nn.Linear(120, n_classes),
        )

    def forward(self, images):
        return self.classifier(self.features(images))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--train", required=True, help="JSON file with the indices to train on, in ImageFolder's order")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    steps = [transforms.Resize((options.size, options.size)), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    images = datasets.ImageFolder(options.folder, transforms.Compose(steps))
    with open(options.train, encoding="utf-8") as file:
        train = Subset(images, json.load(file))
    loader = DataLoader(
        train, options.batch_size, shuffle=True, num_workers=options.workers, persistent_workers=options.workers > 0
    )
    model = Net(options.size, len(images.classes)).train()
    optimizer = torch.optim.Adam(model.parameters())
    loss = nn.CrossEntropyLoss()
    seconds = []
    for _ in range(options.epochs):
        began = time.perf_counter()
        for pixels, labels in loader:
            optimizer.zero_grad()
            loss(model(pixels), labels).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"n_train": len(train), "epochs": seconds}))


if __name__ == "__main__":
    main()
