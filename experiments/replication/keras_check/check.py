"""Are our networks those that the Keras listings make? The same weights in, the same outputs and gradients out.

    make .venv-bench/.installed
    python experiments/replication/keras_check/check.py --peer-python .venv-bench/bin/python

For each system the network of its config is made here, its weights, a batch of 32 real images, the outputs and the
gradients of the training loss (L2 included, dropout off) go to a file, and `in_keras.py` builds the listing's network
with Keras in the benchmark's environment, takes the same weights and batch, and compares. results.json holds the largest
differences, relative to the largest value; float32 rounding is some 1e-6. blog-lenet5 is compared twice: with its
initial centres, and with centres so far away that Keras's clipping takes the gradient of some of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmnist_cv import Experiment
from fmnist_cv.engine.environment import describe_environment
from fmnist_cv.utils import paths

HERE = Path(__file__).parent
SYSTEMS = {
    "smith-dense": ("smith-dense", []),
    "smith-cnn": ("smith-cnn", []),
    "blog-dense": ("blog-dense", []),
    "blog-cnn1": ("blog-cnn1", []),
    "blog-cnn2": ("blog-cnn2", []),
    "blog-lenet5": ("blog-lenet5", ["--model.clip=true"]),
    "blog-lenet5-far": ("blog-lenet5", ["--model.clip=true"]),
    "blog-lenet5-relu": ("blog-lenet5", ["--model.activation=relu", "--model.output=linear"]),
}
TOLERANCE = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peer-python", required=True, type=paths.argument, help="interpreter of the benchmark's environment"
    )
    options = parser.parse_args()
    systems: dict[str, dict[str, float]] = {}
    for system, (config, overrides) in SYSTEMS.items():
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "ours.npz"
            arrays = outputs_and_gradients(config, overrides, 22.0 if system.endswith("far") else 1.0)
            np.savez(path, allow_pickle=False, **arrays)
            command = [options.peer_python.absolute(), HERE / "in_keras.py", system, path]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout)
        systems[system] = found
        print(f"{system}: outputs differ by {found['outputs']:.1e}, gradients by {found['gradients']:.1e}")
    results = {"environment": describe_environment("cpu", torch.get_num_threads(), "32-true"), "systems": systems}
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    worst = max(found[key] for found in systems.values() for key in ("outputs", "gradients"))
    if worst > TOLERANCE:
        raise SystemExit(f"a difference of {worst:.1e} is more than rounding")


def outputs_and_gradients(config: str, overrides: list[str], spread: float) -> dict[str, np.ndarray]:
    """What a network makes of 32 training images: its probabilities, and the gradient of each parameter.

    Args:
        config: the system's config.
        overrides: options in addition.
        spread: how much farther from the origin than at first the centres of an RBF output lie.
    """
    parts = Experiment.parse([f"--config={config}", *overrides]).build(seed=1)
    model: Any = parts.model.eval()
    data = parts.data
    if spread != 1:
        model.classifier[-1].centres.data *= spread
    data.setup("fit")
    images, labels = data.prepare(data.train_images.images[:32]), data.train_images.labels[:32]
    logits = model(images)
    loss = model.loss(logits, labels)
    (loss + model.l2_penalty() if model.l2 else loss).backward()
    arrays = {"images": images, "labels": labels, "outputs": logits.softmax(1)}
    for i, parameter in enumerate(model.parameters()):
        assert parameter.grad is not None
        arrays |= {f"weight_{i}": parameter, f"gradient_{i}": parameter.grad}
    return {name: array.detach().numpy() for name, array in arrays.items()}


if __name__ == "__main__":
    main()
