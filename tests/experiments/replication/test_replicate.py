"""`python -m experiments.replication` as a process, on small rows of synthetic images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import environment

from experiments.replication.__main__ import main
from experiments.replication.scores import Score
from experiments.replication.tables import verdict

Here = Callable[..., str]
TINY = {
    "name": "tiny",
    "cv": {"holdout": 0.3, "stratify": False},
    "model": {
        "class_path": "fmnist_cv.models.DenseNetwork",
        "init_args": {"hidden": [8], "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}}},
    },
    "data": {"class_path": "fmnist_cv.data.SyntheticDataModule", "init_args": {"n_train": 200, "n_test": 60}},
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "precision": "32-true", "logger": False},
}
PUBLISHED = {
    "alpha": {
        "config": "tiny",
        "paper": "Somebody",
        "reported": {"test": 50.0},
        "seeds": 2,
        "minutes": 0.1,
        "reported_per_class": {"precision": [0.5] * 10, "recall": [0.4] * 10},
        "variants": {"as described": {}, "wider": {"model.hidden": [16], "reported": None}},
    },
    "beta": {
        "config": "tiny",
        "paper": "Somebody",
        "reported": {"test": 90, "validation": 12},
        "compare": "validation",
        "epoch": "best",
        "seeds": 1,
        "claims": "the moon",
        "variants": {"as described": {}},
    },
}
FOLDS = {"cv.holdout": None, "cv.n_splits": 3, "cv.stratify": True}
STUDIES = {
    "equal-terms": {
        "config": "tiny",
        "seeds": 1,
        "overrides": {
            **FOLDS,
            "model.optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
            "data.batch_size": 32,
            "trainer.max_epochs": 1,
        },
        "variants": {"small": {}, "large": {"model.hidden": [32]}},
    },
    "cross-validation": {
        "config": "tiny",
        "seeds": 2,
        "overrides": {"cv.stratify": True, "trainer.max_epochs": 2},
        "variants": {
            "hold-out": {},
            "k = 3": FOLDS,
            "all images": {"cv.holdout": 10},
            "all images, 2 models": {"cv.holdout": 10, "cv.n_repeats": 2},
        },
    },
    "learning-curve": {
        "config": "tiny",
        "seeds": 1,
        "overrides": {"cv.stratify": True},
        "variants": {"50 images": {"cv.train_size": 50}, "all": {"cv.train_size": None}},
    },
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with configs of small rows."""
    for name, content in (("configs/tiny", TINY), ("rows/published", PUBLISHED), ("rows/studies", STUDIES)):
        write_yaml(tmp_path, name, content)
    return tmp_path


def write_yaml(project: Path, name: str, content: Any) -> None:
    path = project / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.fixture
def replicate_here(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """The command in this process, which need not import everything anew: what it prints, errors at the end."""

    def run(*arguments: str, status: int = 0) -> str:
        monkeypatch.chdir(project)
        monkeypatch.setenv("COLUMNS", "200")
        try:
            found: Any = main([*arguments, "--definitions=rows"])
        except SystemExit as exit_:  # argparse's own
            found = exit_.code
        printed = capsys.readouterr()
        assert found == status and "Traceback" not in printed.err
        return printed.out + printed.err

    return run


def replicate(project: Path, *arguments: str, status: int = 0) -> str:
    command = [sys.executable, "-m", "experiments.replication", *arguments, "--definitions=rows"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment(COLUMNS="200"))
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_rows_are_run_once_and_stand_beside_the_reported_numbers(project: Path, replicate_here: Here) -> None:
    out = project / "experiments" / "replication"
    said = replicate(project, "--only", "beta", "alpha", "--workers", "2")
    assert "done, 4 of 4 runs" in said
    alpha = json.loads((out / "published" / "alpha.json").read_text())
    # of an interpretation without a printed number one seed is run
    assert [len(variant["runs"]) for variant in alpha["variants"].values()] == [2, 1]
    run = alpha["variants"]["wider"]["runs"][0]
    assert (run["seed"], run["n_parameters"]) == (0, 784 * 16 + 16 + 170)
    assert alpha["variants"]["wider"]["settings"]["model"]["init_args"]["hidden"] == [16]
    assert run["environment"]["versions"]["torch"] and run["times"]["train_seconds"] > 0
    page = (out / "README.md").read_text()
    mean = 50 * sum(r["folds"][0]["last"]["test"]["accuracy"] for r in alpha["variants"]["as described"]["runs"])
    assert f"| 50 | {mean:.2f} ±" in page and f"| {mean - 50:+.2f} |" in page
    assert "; not what it claims: the moon |" in page and "(1 seeds)" not in page
    assert (out / "figures" / "alpha.png").stat().st_size > 10_000

    before = json.loads((out / "published" / "alpha.json").read_text())["variants"]["as described"]
    more = replicate_here("--only", "beta", "alpha", "--seeds", "2", "--workers", "1")
    assert (
        "beta (as described), seed 1: done" in more and "alpha (wider), seed 1: done" in more and "seed 0" not in more
    )
    assert json.loads((out / "published" / "alpha.json").read_text())["variants"]["as described"] == before

    changed = PUBLISHED | {"beta": PUBLISHED["beta"] | {"variants": {"as described": {"trainer.max_epochs": 1}}}}
    write_yaml(project, "rows/published", changed)
    before = (out / "published" / "beta.json").read_bytes()
    refused = replicate_here("--only", "beta", "--seeds", "3", status=1)  # two seeds that are there, and a new one
    assert "was run with other settings: trainer.max_epochs (2 in the run, 1 here)" in refused and "tables:" in refused
    assert "done" not in refused and (out / "published" / "beta.json").read_bytes() == before


def test_studies_become_sections(project: Path, replicate_here: Here) -> None:
    replicate_here("--only", "equal-terms", "cross-validation", "learning-curve", "--workers", "1")
    out = project / "experiments" / "replication"
    page = (out / "README.md").read_text()
    for heading in ("## On equal terms", "## Does cross-validation raise accuracy?", "## Would more images help?"):
        assert heading in page
    studied = json.loads((out / "studies" / "cross-validation.json").read_text())
    gain = [
        100 * (r["ensemble"]["last"]["accuracy"] - sum(f["last"]["test"]["accuracy"] for f in r["folds"]) / 3)
        for r in studied["variants"]["k = 3"]["runs"]
    ]
    assert f"| {sum(gain) / 2:+.2f} ({min(gain):+.2f} to {max(gain):+.2f}) |" in page
    assert page.count("|  | vote |") == 2 and page.count("|  | best fold |") == 1  # models of all images vote, too
    assert [len(v["runs"][0]["folds"][0]["curves"]["epoch"]) for v in studied["variants"].values()] == [2, 2, 2, 2]
    assert (out / "figures" / "equal-terms-large.png").is_file()
    sizes = json.loads((out / "studies" / "learning-curve.json").read_text())["variants"]
    assert [v["runs"][0]["folds"][0]["n_train"] for v in sizes.values()] == [50, 140]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--only", "alpa"], "there is no row 'alpa'"),
        ([], "one of the arguments --only --all --tables is required"),
        (["--all", "--seeds", "0"], "is not a number from 1 to 9999"),
        (["--all", "--seed", "3"], "unrecognized arguments"),
    ],
)
def test_mistakes_are_named(replicate_here: Here, arguments: list[str], reason: str) -> None:
    assert reason in replicate_here(*arguments, status=2)


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (Score(88.9, 0.2, 3), "reproduced"),
        (Score(89.2, 0.2, 3), "better"),
        (Score(86.9, 0.6, 3), "worse"),  # a wide spread does not excuse
        (Score(86.9, None, 1), "worse"),
    ],
)
def test_the_verdict_follows_its_rule(ours: Score, words: str) -> None:
    assert verdict(ours, 88.0) == words
