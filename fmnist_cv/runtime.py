"""What a process needs before the first tensor: allocator, threads, seeds, devices.

torch is imported where it is used: commands that only read results do without it.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import random
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import psutil

from fmnist_cv.errors import UserError


def keep_freed_memory() -> None:
    """Tell glibc to keep freed pages instead of returning them to the kernel; elsewhere do nothing.

    A training step frees and allocates the same 100 MB of activations again and again, and faulting those
    pages in again costs more than the arithmetic. Every process must do this itself, before its first tensor.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 16 << 20)


def prepare_process(threads: int | None = None) -> None:
    """Set up this process for training: allocator, denormals, threads.

    Denormal numbers are flushed to zero because Adam's running averages of weights whose gradient is always
    zero (border pixels, dead units) decay into them after some 800 steps, and from then on arithmetic on
    them takes twice as long as everything else in a small network.
    """
    import torch

    keep_freed_memory()
    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)


def cpu_cores() -> int:
    """Cores this process may use: its affinity, not the machine's count, and no more than a container's CPU quota.

    Of a quota of 1.5 cores it is 2: two folds side by side get the half core that one would leave unused.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota())))


def cpu_quota(root: Path = Path("/")) -> float:
    """Cores' worth of time that this process's control groups (Linux: v1, v2) allow; infinite without a limit."""
    quotas = [math.inf]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        here = PurePosixPath(group.lstrip("/"))
        # a limit holds for all groups below; in a container the group may be its root
        for folder in (here, *here.parents):
            if not controllers:
                limit = _text(root / "sys/fs/cgroup" / folder / "cpu.max").split()
            elif "cpu" in controllers.split(","):
                v1 = root / "sys/fs/cgroup/cpu" / folder
                limit = [_text(v1 / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
            else:
                continue
            if len(limit) == 2 and limit[0] not in ("max", "-1", ""):
                quotas.append(int(limit[0]) / int(limit[1]))
    return min(quotas)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def monotonic_clock() -> str:
    """Name the clock that `time.monotonic` reads: all processes of a machine share it until the next boot."""
    # where the boot has no name, two boots of one machine are taken for one
    return _text(Path("/proc/sys/kernel/random/boot_id")).strip() or platform.node()


def peak_memory_mb() -> float:
    """The most memory that this process has held so far."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**20
    import resource  # which Windows lacks

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


LARGEST_SEED = 2**32 - 1  # that NumPy's global generator takes


def derive_seed(*parts: int) -> int:
    """One 32-bit seed from several non-negative integers, e.g. (seed, repeat, fold, epoch)."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators, so that what follows depends on `seed` alone."""
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def has_fast_bf16(accelerator: str) -> bool:
    """Whether bf16 arithmetic is native on the device: an AVX-512 BF16 or AMX processor, or an Ampere or later GPU."""
    import torch

    if accelerator == "cpu":
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        return bool(supported and supported())
    return accelerator == "cuda" and torch.cuda.get_device_capability()[0] >= 8


@dataclass(frozen=True)
class Devices:
    """Where folds run: an accelerator ("cpu", "cuda", "mps") and the indices of its devices, one fold on each."""

    accelerator: str
    indices: tuple[int, ...]

    @property
    def description(self) -> str:
        """The device's name for result files, e.g. "Intel(R) Xeon(R) Processor, 2 cores"."""
        if self.accelerator == "cuda":
            import torch

            return ", ".join(sorted({torch.cuda.get_device_name(i) for i in self.indices}))
        return f"{_cpu_name()}, {cpu_cores()} cores" if self.accelerator == "cpu" else "Apple GPU"


def find_devices(accelerator: str, devices: object) -> Devices:
    """Resolve Lightning's `trainer.accelerator` and `trainer.devices` to devices that exist.

    Raises:
        UserError: the accelerator or one of the devices is not on this machine.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    resolved = {"gpu": "mps" if mps and not cuda else "cuda"}.get(accelerator, accelerator)
    if resolved == "auto":
        resolved = "cuda" if cuda else "mps" if mps else "cpu"
    present = {"cpu": 1, "cuda": torch.cuda.device_count() if cuda else 0, "mps": int(mps)}
    if resolved not in present:
        raise UserError(f"trainer.accelerator is '{accelerator}'; this project runs on cpu, cuda (gpu) and mps")
    count = present[resolved]
    if not count:
        raise UserError(
            f"trainer.accelerator is '{accelerator}', but this machine has no such device; "
            "use --trainer.accelerator cpu (or leave it on 'auto')"
        )
    indices = _device_indices(devices, count)
    if missing := [i for i in indices if i >= count]:
        raise UserError(
            f"trainer.devices is {devices}, but this machine has {count} {resolved} device(s): "
            f"there is no device {missing[0]}"
            + (". On the CPU, spread folds over cores with --cv.workers" if resolved == "cpu" else "")
        )
    return Devices(resolved, indices)


def _device_indices(devices: object, count: int) -> tuple[int, ...]:
    """ "auto" and -1 are all devices; n the first n; [i, j] or "i,j" those."""
    if devices in ("auto", -1, "-1"):
        return tuple(range(count))
    try:
        if isinstance(devices, str):
            devices = [int(d) for d in devices.split(",") if d.strip()] if "," in devices else int(devices)
        indices = tuple(range(devices)) if isinstance(devices, int) else tuple(int(d) for d in devices)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        indices = ()
    if not indices or min(indices) < 0:
        raise UserError(f"trainer.devices is {devices!r}; give 'auto', a count of at least 1, or a list of indices")
    return indices


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
