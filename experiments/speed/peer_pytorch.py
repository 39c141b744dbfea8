"""Peer (b) of the speed benchmark: k-fold cross-validation in plain PyTorch.

Written as one would after the published paper: torchvision's dataset with ToTensor, scikit-learn's
KFold, a Subset and a DataLoader for each side of a fold, float32 on the CPU with torch's own thread
count, and the folds one after another.  The number of loader workers is the faster one measured.
"""

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

torchvision = import_torchvision()
WORKERS = {"sharifi-cnn": 0, "patel-ann": 0}


class SharifiCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.layer2 = nn.Sequential(nn.Conv2d(32, 64, kernel_size=3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2))
        self.fc1 = nn.Linear(64 * 6 * 6, 600)
        self.drop = nn.Dropout(0.25)
        self.fc2 = nn.Linear(600, 120)
        self.fc3 = nn.Linear(120, 10)

    def forward(self, x):
        x = self.layer2(self.layer1(x)).flatten(1)
        return self.fc3(self.fc2(self.drop(self.fc1(x))))


class PatelANN(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
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

    def forward(self, x):
        return self.layers(x)


def build(system):
    """Return a fresh network, its loss and its optimizer."""
    if system == "sharifi-cnn":
        model = SharifiCNN()
        return model, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
    model = PatelANN()
    return model, nn.NLLLoss(), torch.optim.Adam(model.parameters(), lr=3e-3)


def train_epoch(model, loader, criterion, optimizer):
    model.train()
    total = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
    return total / len(loader.dataset)


def evaluate(model, loader, criterion):
    model.eval()
    total, correct = 0.0, 0
    with torch.no_grad():
        for images, labels in loader:
            outputs = model(images)
            total += criterion(outputs, labels).item() * len(labels)
            correct += (outputs.argmax(dim=1) == labels).sum().item()
    return total / len(loader.dataset), correct / len(loader.dataset)


def main():
    options = command_line(__doc__.splitlines()[0]).parse_args()
    workers = WORKERS[options.system] if options.workers is None else options.workers
    batch_size = BATCH_SIZE[options.system]
    torch.manual_seed(0)
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
        model, criterion, optimizer = build(options.system)

        stopwatch.new_fold()
        for epoch in range(options.epochs):
            stopwatch.new_epoch()
            train_loss = train_epoch(model, train_loader, criterion, optimizer)
            stopwatch.pause()
            images_trained += len(train_index)
            val_loss, accuracy = evaluate(model, val_loader, criterion)
            print(f"fold {fold} epoch {epoch}: {train_loss=:.4f} {val_loss=:.4f} {accuracy=:.4f}", flush=True)
        val_accuracy.append(accuracy)

    settings = {"workers": workers, "threads": torch.get_num_threads(), "precision": "float32"}
    packages = ["torch", "torchvision", "scikit-learn", "numpy"]
    write_report(options, "pytorch", stopwatch, images_trained, val_accuracy, packages, settings)


if __name__ == "__main__":
    main()
