"""Speed and memory of fmnist_cv compared with a plain PyTorch script, plain Lightning and Keras, in one call.

Every program trains the same network with the same batch size on real Fashion-MNIST, as a process of its own, one
after the other, in rounds of alternating order. Two parts: `throughput`, the training alone, for a few epochs, ours
with all folds, the others on their first fold; and `whole`, the time of a whole cross-validation from start to end of
the process.

    make bench
    python experiments/speed/benchmark.py --peer-python .venv-bench/bin/python --systems patel-ann --rounds 3

An interrupted benchmark resumes; delete the results file to measure again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmnist_cv.engine.writable import check_file_writable
from fmnist_cv.utils import paths

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OURS = "fmnist_cv"
THROUGHPUT_EPOCHS = {"sharifi-cnn": 2, "patel-ann": 10}  # some ten seconds of training each, not its start alone
PEERS = {"pytorch": "peer_pytorch.py", "lightning": "peer_lightning.py", "keras": "peer_keras.py"}
LABELS = {
    OURS: "(a) fmnist_cv, whole command",
    "pytorch": "(b) plain PyTorch script",
    "lightning": "(c) plain Lightning",
    "keras": "(d) Keras 3 on TensorFlow",
}


def main() -> None:
    options = parse_options()
    settings = {"folds": options.folds, "epochs": options.epochs, "throughput_epochs": THROUGHPUT_EPOCHS}
    results = (
        json.loads(options.out.read_text(encoding="utf-8"))
        if options.out.exists()
        else {"settings": settings, "runs": []}
    )
    if results["settings"] != settings:
        raise SystemExit(f"{options.out} was measured with {results['settings']}, not {settings}: delete or rename it")
    done = {(run["part"], run["system"], run["program"], run["round"]) for run in results["runs"]}
    for part, system, program, turn in plan(options):
        if (part, system, program, turn) in done:
            continue
        run = {"part": part, "system": system, "program": program, "round": turn, "commit": git_commit()}
        run |= measure(part, program, system, options)
        print(
            f"{part}, round {turn}, {system}, {program}: {run['images_per_second']:,.0f} images/s, "
            f"{run['wall_seconds']:.1f} s, {run['peak_memory_mb']:,.0f} MB",
            flush=True,
        )
        results["runs"].append(run)
        results["machine"] = machine()
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    table = tables(results)
    print("\n" + table)
    options.out.with_suffix(".md").write_text(table, encoding="utf-8")


def plan(options: argparse.Namespace) -> Iterator[tuple[str, str, str, int]]:
    """(part, system, program, round) in the order in which they run."""
    parts = {
        "throughput": (options.rounds, [OURS, *PEERS]),
        "whole": (options.whole_rounds, [OURS, *options.whole_peers]),
    }
    for part, (rounds, programs) in parts.items():
        for turn in range(rounds):
            for system in options.systems:
                for program in programs if turn % 2 == 0 else programs[::-1]:
                    yield part, system, program, turn


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peer-python", required=True, type=paths.argument, help="interpreter of the peers' environment"
    )
    parser.add_argument("--systems", nargs="+", choices=list(THROUGHPUT_EPOCHS), default=list(THROUGHPUT_EPOCHS))
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the throughput part")
    parser.add_argument("--whole-rounds", type=int, default=3, help="rounds of the whole cross-validation")
    parser.add_argument(
        "--whole-peers", nargs="*", choices=list(PEERS), default=list(PEERS), help="who takes part in it"
    )
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5, help="epochs of the whole cross-validation")
    parser.add_argument("--out", type=paths.argument, default=HERE / "cpu.json")
    options = parser.parse_args()
    check_file_writable(options.out, "--out")
    return options


def measure(part: str, program: str, system: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one program once; images per second of training, wall seconds of the whole process, peak memory."""
    epochs = options.epochs if part == "whole" else THROUGHPUT_EPOCHS[system]
    with tempfile.TemporaryDirectory() as scratch:
        if program == OURS:
            command = [
                sys.executable,
                "-m",
                "fmnist_cv.fit",
                "--config",
                f"configs/{system}.yaml",
                "--cv.holdout",
                "null",
                "--cv.n_splits",
                str(options.folds),
                "--selection.patience",
                "null",
                "--trainer.max_epochs",
                str(epochs),
                "--log_dir",
                scratch,
                "--run",
                "bench",
            ]
        else:
            command = [
                str(options.peer_python.absolute()),
                str(HERE / PEERS[program]),
                "--system",
                system,
                "--folds",
                str(options.folds),
                "--epochs",
                str(epochs),
                "--out",
                f"{scratch}/out.json",
                *(["--max-folds", "1"] if part == "throughput" else []),
            ]
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
        )
        memory = MemoryWatch(process.pid)
        output, _ = process.communicate()
        wall = time.perf_counter() - began
        memory.stop()
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{output}")
        if program == OURS:
            summary = json.loads((Path(scratch) / system / "bench" / "results.json").read_text(encoding="utf-8"))
            accuracy = summary["validation"]["last"]["accuracy"]["mean"]
            speed, images = summary["times"]["images_per_second"], summary["times"]["images_trained"]
            details = summary["environment"] | {"peak_memory_mb_per_process": summary["times"]["peak_memory_mb"]}
        else:
            report = json.loads(Path(f"{scratch}/out.json").read_text(encoding="utf-8"))
            accuracy = statistics.mean(report["val_accuracy"])
            speed, images = report["images_per_second"], report["images_trained"]
            details = {"versions": report["versions"], "settings": report["settings"]}
    return {
        "images_per_second": speed,
        "images_trained": images,
        "wall_seconds": round(wall, 2),
        "peak_memory_mb": round(memory.peak_mb, 1),
        "val_accuracy": accuracy,
        "details": details,
    }


class MemoryWatch:
    """Peak memory of a process and all its descendants: the sum of their proportional set sizes, sampled."""

    def __init__(self, pid: int) -> None:
        self.peak_mb = 0.0
        self._pid, self._stop = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self.peak_mb = max(self.peak_mb, sum(map(_pss_mb, _descendants(self._pid))))


def _descendants(pid: int) -> list[int]:
    found, waiting = [], [pid]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                waiting += map(int, task.read_text(encoding="utf-8").split())
            except OSError:
                continue
    return found


def _pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024
    except (OSError, StopIteration):
        return 0.0


def machine() -> dict[str, Any]:
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "bf16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
    }


def git_commit() -> str:
    return subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, encoding="utf-8"
    ).stdout.strip()


def tables(results: dict[str, Any]) -> str:
    """Medians over the rounds, and how many times ours is faster than each peer."""
    info, settings, runs = results["machine"], results["settings"], results["runs"]
    rounds = {part: len({r["round"] for r in runs if r["part"] == part}) for part in ("throughput", "whole")}
    epochs = ", ".join(f"{n} epochs of {system}" for system, n in settings["throughput_epochs"].items())
    lines = [
        f"{info['cpu']}, {info['cores']} cores, {info['memory_gib']} GiB, bf16: {', '.join(info['bf16']) or 'none'}; "
        f"Python {info['python']}; commit {', '.join(sorted({run['commit'] for run in runs}))}. Images/s: training only, "
        f"{epochs}, median of {rounds['throughput']} alternating rounds, ours all "
        f"{settings['folds']} folds side by side, the others their first fold. Whole process: {settings['folds']} folds, "
        f"{settings['epochs']} epochs, validation, scoring and start-up included, median of {rounds['whole']} round(s). "
        "Ours trains sharifi-cnn in bf16; all others, and patel-ann, are float32.",
        "",
    ]
    for system in dict.fromkeys(run["system"] for run in runs):

        def median(part: str, program: str, key: str, system: str = system) -> float | None:
            values = [r[key] for r in runs if (r["part"], r["system"], r["program"]) == (part, system, program)]
            return statistics.median(values) if values else None

        ours, ours_whole = median("throughput", OURS, "images_per_second"), median("whole", OURS, "wall_seconds")
        lines += [
            f"### {system}",
            "",
            "| program | images/s | ours / theirs | whole process, s | theirs / ours | peak memory, MB |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for program, label in LABELS.items():
            speed, whole = median("throughput", program, "images_per_second"), median("whole", program, "wall_seconds")
            memory = median("throughput", program, "peak_memory_mb")
            if ours is None or speed is None or memory is None:
                continue
            wall = f"{whole:.0f} | {whole / ours_whole:.2f}" if whole and ours_whole else "|"
            lines.append(f"| {label} | {speed:,.0f} | {ours / speed:.2f} | {wall} | {memory:,.0f} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
