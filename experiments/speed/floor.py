"""How far is a training step from what the machine could do? FLOPs and bytes of a step, measured ceilings, the gap.

    python experiments/speed/floor.py            # writes floor.json and prints it

One thread, as one of two folds side by side has. The floor is the larger of two times: floating-point operations over
the measured rate of a large matrix product, and bytes moved by all operators (each input read once, each output
written once, as if nothing stayed in a cache) over the measured copy bandwidth.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from fmnist_cv.models import BatchNormCNN, ImageClassifier, LogSoftmaxANN
from fmnist_cv.runtime import prepare_process

HERE = Path(__file__).parent
SYSTEMS: dict[str, tuple[type[ImageClassifier], int, torch.dtype, float]] = {
    "sharifi-cnn": (BatchNormCNN, 1000, torch.bfloat16, 1e-3),
    "patel-ann": (LogSoftmaxANN, 64, torch.float32, 3e-3),
}


class CountBytes(TorchDispatchMode):
    """Adds up the bytes of every operator's inputs and outputs; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, Tensor)]
        outputs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        known = {t.data_ptr() for t in inputs}
        if not (outputs and all(t.data_ptr() in known for t in outputs) and not func._schema.is_mutable):
            self.bytes += sum(t.numel() * t.element_size() for t in (*inputs, *outputs))
        return out


def main() -> None:
    prepare_process(threads=1)
    ceilings = {
        "matmul_gflops_bfloat16": matmul_rate(torch.bfloat16) / 1e9,
        "matmul_gflops_float32": matmul_rate(torch.float32) / 1e9,
        "copy_gb_per_s": copy_bandwidth() / 1e9,
    }
    results: dict[str, Any] = {"threads": 1, "ceilings": ceilings}
    for system, (network, batch_size, dtype, lr) in SYSTEMS.items():
        step = make_step(network(), batch_size, dtype, lr)
        for _ in range(5):
            step()
        seconds = median_seconds(step, 20)
        with FlopCounterMode(display=False) as flops:
            step()
        with CountBytes() as moved:
            step()
        rate = ceilings[f"matmul_gflops_{str(dtype).removeprefix('torch.')}"] * 1e9
        compute, memory = flops.get_total_flops() / rate, moved.bytes / (ceilings["copy_gb_per_s"] * 1e9)
        results[system] = {
            "batch_size": batch_size,
            "gflop_per_step": flops.get_total_flops() / 1e9,
            "megabytes_per_step": moved.bytes / 1e6,
            "compute_floor_ms": 1e3 * compute,
            "memory_floor_ms": 1e3 * memory,
            "step_ms": 1e3 * seconds,
            "times_the_floor": seconds / max(compute, memory),
            "images_per_second": batch_size / seconds,
            "largest_operators": largest_operators(step),
        }
    text = json.dumps(results, indent=2)
    (HERE / "floor.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def make_step(network: ImageClassifier, batch_size: int, dtype: torch.dtype, lr: float) -> Callable[[], None]:
    """A bare training step on random images, without Lightning and without a loader."""
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, fused=True)
    images = torch.rand(batch_size, 1, 28, 28).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch_size,))

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = network.loss(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def largest_operators(step: Callable[[], None], n: int = 8) -> dict[str, float]:
    """Share of the step's time of the operators that take most of it themselves."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(10):
            step()
    events = sorted(profiler.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in events)
    return {e.key: round(e.self_cpu_time_total / total, 3) for e in events[:n]}


def matmul_rate(dtype: torch.dtype, n: int = 2048) -> float:
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    return 2 * n**3 / median_seconds(lambda: torch.mm(a, b), 10)


def copy_bandwidth(n: int = 64_000_000) -> float:
    source, target = torch.rand(n), torch.empty(n)
    return 2 * source.nbytes / median_seconds(lambda: target.copy_(source), 10)


def median_seconds(call: Callable[[], object], n: int) -> float:
    call()
    times = []
    for _ in range(n):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
