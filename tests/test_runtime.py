"""Seeds, devices, and what importing the package does and does not do."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from fmnist_cv import runtime
from fmnist_cv.errors import UserError, did_you_mean
from fmnist_cv.runtime import (
    Devices,
    cpu_cores,
    cpu_quota,
    derive_seed,
    find_devices,
    has_fast_bf16,
    keep_freed_memory,
    prepare_process,
    seed_everything,
)

ROOT = Path(__file__).parents[1]


def in_fresh_process(code: str) -> str:
    """What the code prints, run by another interpreter."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- seeds --------------------------------------------------------------------------------------------------


def test_derived_seeds_never_change() -> None:
    """Saved runs and published numbers depend on them."""
    assert derive_seed(0, 1, 2) == 3_884_055_042
    assert derive_seed(42, 0, 4, 7) == 590_303_223


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_derived_seeds_fit_every_generator(parts: list[int]) -> None:
    seed = derive_seed(*parts)
    assert type(seed) is int and 0 <= seed < 2**32
    assert seed == derive_seed(*parts)


def test_derived_seeds_of_one_length_are_apart() -> None:
    seeds = {derive_seed(seed, repeat, fold) for seed in range(10) for repeat in range(10) for fold in range(10)}
    assert len(seeds) == 1000


def test_seeding_makes_all_three_generators_repeat() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_everything(3)
    first = draws()
    assert draws() != first
    seed_everything(3)
    assert draws() == first
    seed_everything(4)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


# -- devices ------------------------------------------------------------------------------------------------


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
@pytest.mark.parametrize("devices", ["auto", -1, "-1", 1, "1", [0]])
def test_without_a_gpu_it_is_the_processor(accelerator: str, devices: object) -> None:
    assert find_devices(accelerator, devices) == Devices("cpu", (0,))


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("devices", "indices"),
    [
        ("auto", (0, 1)),
        (-1, (0, 1)),
        (2, (0, 1)),
        (1, (0,)),
        ([1], (1,)),
        ("1,0", (1, 0)),
        ("0,", (0,)),
        ((0, 1), (0, 1)),
    ],
)
@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_gpus_are_counted_or_listed(accelerator: str, devices: object, indices: tuple[int, ...]) -> None:
    assert find_devices(accelerator, devices) == Devices("cuda", indices)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("accelerator", "devices", "reason"),
    [
        (
            "cuda",
            "auto",
            "trainer.accelerator is 'cuda', but this machine has no such device.*--trainer.accelerator cpu",
        ),
        ("gpu", 1, "trainer.accelerator is 'gpu', but this machine has no such device"),
        ("mps", "auto", "trainer.accelerator is 'mps', but this machine has no such device"),
        ("tpu", "auto", "trainer.accelerator is 'tpu'; this project runs on cpu, cuda"),
        ("cpu", 2, "trainer.devices is 2, but this machine has 1 cpu.*no device 1.*--cv.workers"),
        ("cpu", [1], r"trainer.devices is \[1\].*no device 1"),
        ("cpu", 0, "trainer.devices is 0; give 'auto', a count of at least 1, or a list"),
        ("cpu", "0", "trainer.devices is 0"),
        ("cpu", -2, "trainer.devices is -2"),
        ("cpu", [], r"trainer.devices is \[\]"),
        ("cpu", [-1], r"trainer.devices is \[-1\]"),
        ("cpu", "all", "trainer.devices is 'all'"),
        ("cpu", None, "trainer.devices is None"),
        ("cpu", 1.5, "trainer.devices is 1.5"),
    ],
)
def test_devices_that_are_not_there_are_refused(accelerator: str, devices: object, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        find_devices(accelerator, devices)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("devices", "missing"), [(3, 2), ([0, 5], 5), ("2,", 2)])
def test_gpus_that_are_not_there_are_refused(devices: object, missing: int) -> None:
    with pytest.raises(UserError, match=f"has 2 cuda device.*there is no device {missing}"):
        find_devices("gpu", devices)


def test_devices_are_described() -> None:
    assert find_devices("cpu", "auto").description.endswith(f", {cpu_cores()} cores")
    assert cpu_cores() >= 1


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bf16_is_fast_from_ampere_on(capability: tuple[int, int], fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert has_fast_bf16("cuda") is fast
    assert has_fast_bf16("mps") is False and isinstance(has_fast_bf16("cpu"), bool)


# -- the process --------------------------------------------------------------------------------------------


def test_the_process_is_prepared_and_may_be_again() -> None:
    threads = torch.get_num_threads()
    keep_freed_memory()
    prepare_process()
    assert torch.get_num_threads() == threads
    prepare_process(threads=1)
    assert torch.get_num_threads() == 1
    assert float(torch.tensor(1e-40) * 1.0) == 0.0  # denormal numbers count as zero


def test_torchvision_imports_in_a_fresh_process() -> None:
    code = "import fmnist_cv, torchvision.datasets, torchvision.ops; print(torchvision.datasets.FashionMNIST.__name__)"
    assert in_fresh_process(code) == "FashionMNIST"


def test_importing_the_package_is_quick_and_prints_nothing() -> None:
    heavy = ("lightning", "torchvision", "sklearn", "pandas", "matplotlib", "jsonargparse", "kornia", "torchmetrics")
    code = f"import sys, fmnist_cv; print([m for m in {heavy} if m in sys.modules])"
    assert in_fresh_process(code) == "[]"


def test_public_names_are_there() -> None:
    import fmnist_cv

    for name in fmnist_cv.__all__:
        assert getattr(fmnist_cv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'cross_validat'"):
        _: Any = fmnist_cv.cross_validat


@pytest.mark.parametrize(("word", "hint"), [("batchsize", "; did you mean 'batch_size'?"), ("qqq", ""), ("", "")])
def test_the_nearest_word_is_suggested(word: str, hint: str) -> None:
    assert did_you_mean(word, ["fold", "batch_size", "seed"]) == hint


# -- a container's quota ------------------------------------------------------------------------------------

V1 = "12:cpu,cpuacct:{group}\n11:memory:{group}\n"
QUOTAS: dict[str, tuple[str, dict[str, str], float]] = {
    "v2, in its own namespace": ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
    "v2, of the group": ("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n"}, 2),
    "v2, of a group above": ("0::/a/b\n", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 0.5),
    "v2, seen from inside": ("0::/../other\n", {"cpu.max": "300000 100000\n"}, 3),
    "v2, no limit": ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
    "v1": (
        V1.format(group="/docker/x"),
        {"cpu/docker/x/cpu.cfs_quota_us": "250000\n", "cpu/docker/x/cpu.cfs_period_us": "100000\n"},
        2.5,
    ),
    "v1, seen from inside": (
        V1.format(group="/docker/x"),
        {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        1,
    ),
    "v1, no limit": (
        V1.format(group="/"),
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        math.inf,
    ),
    "none": ("", {}, math.inf),
}


@pytest.mark.parametrize("where", QUOTAS)
def test_a_containers_quota_is_read(tmp_path: Path, where: str) -> None:
    groups, files, expected = QUOTAS[where]
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == expected


@pytest.mark.parametrize(("quota", "cores"), [(math.inf, 8), (1.5, 2), (0.25, 1), (3, 3), (64, 8)])
def test_cores_are_no_more_than_the_quota(monkeypatch: pytest.MonkeyPatch, quota: float, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(runtime, "cpu_quota", lambda: quota)
    assert cpu_cores() == cores
