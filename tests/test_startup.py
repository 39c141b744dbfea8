"""What is not imported: the help, wrong options and commands that only read results start without torch and Lightning."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path

import lightning as L
import pytest
from running import environment

from fmnist_cv import fit
from fmnist_cv.config.class_paths import keys_below
from fmnist_cv.config.sections import PART_KEYS, RESERVED_TRAINER_OPTIONS, TRAINER_OPTIONS
from fmnist_cv.data.module import SPLIT_ARGUMENTS

HEAVY = ("torch", "lightning", "torchvision", "torchmetrics", "optuna", "matplotlib")


def imported(code: str) -> str:
    """Which of the heavy modules code imports in a fresh process, and what it printed before."""
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint([name for name in {HEAVY} if name in sys.modules])"],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr + ended.stdout


def test_help_and_wrong_options_of_every_command_import_nothing_heavy() -> None:
    code = """
import contextlib, io
from fmnist_cv.command_line import COMMANDS, main
for command in COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main([command, "--help"])
for wrong in ("fit --config=quickstart --trainer.max_epoch=3", "fit --cv.n_split=3", "fit --trainer.strategy=ddp", "fit --lr=3", "fit --zzz=3",
              "fit --config=quickstrat", "tune --config=quickstart", "tune --trails=3", "tune --wrong=3", "compare a b --ropes=1", "evaluate a --modell=best"):
    assert main(wrong.split()) == 2
"""
    *errors, found = imported(code).splitlines()
    assert found == "[]"
    assert errors[5].startswith("error: config quickstrat does not exist; did you mean 'quickstart'?")
    assert errors[6].startswith("error: config quickstart does not exist; give a YAML file, or one of ")
    assert errors == [
        "error: 'trainer.max_epoch' is not an option; did you mean 'trainer.max_epochs'?",
        "error: 'cv.n_split' is not an option; did you mean 'cv.n_splits'?",
        "error: trainer.strategy is set by the engine and cannot be given: each fold runs on one device",
        "error: 'lr' is not an option; did you mean 'model.optimizer.init_args.lr'?",
        "error: 'zzz' is not an option; see python -m fmnist_cv.fit --help",
        *errors[5:7],
        "error: 'trails' is not an option; did you mean 'trials'?",
        "error: 'wrong' is not an option; see python -m fmnist_cv.tune --help",
        "error: 'ropes' is not an option; did you mean 'rope'? See python -m fmnist_cv.compare --help",
        "error: 'modell' is not an option; did you mean 'model'? See python -m fmnist_cv.evaluate --help",
    ]


def test_runs_are_compared_without_torch(standard: Path) -> None:
    out = imported(
        f"from fmnist_cv.command_line import main\nassert main(['compare', {str(standard)!r}, {str(standard)!r}]) == 2"
    )
    assert out.splitlines()[-1] == "[]" and out.startswith("error: ")


def test_torchvision_works_whichever_of_the_packages_is_imported_first() -> None:
    code = "import fmnist_cv; assert 'torch' not in sys.modules; import lightning, torchvision.ops"
    assert "torchvision" in imported(code)


def test_all_options_of_lightnings_trainer_are_known() -> None:
    """They are listed, so that a misspelt one is refused before Lightning is imported."""
    parameters = set(signature(L.Trainer).parameters)
    assert parameters == {*TRAINER_OPTIONS, *RESERVED_TRAINER_OPTIONS}


def test_keys_that_are_suggested_are_those_of_the_classes() -> None:
    """They are listed, too; of an optimizer only some."""
    model = [f"model.{key}" for key in keys_below("fmnist_cv.models.ImageClassifier")]
    data = [f"data.{key}" for key in keys_below("fmnist_cv.data.ArrayDataModule") if key not in SPLIT_ARGUMENTS]
    assert {*PART_KEYS} <= {*model, *data}
    assert not [key for key in {*model, *data} - {*PART_KEYS} if not key.startswith("model.optimizer.init_args.")]


@pytest.mark.parametrize("name", ["fmnist_cv.fit", "fmnist_cv.tune"])
def test_the_help_has_at_most_two_screens(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        import_module(name).main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert len(lines) <= 100 and max(map(len, lines)) <= 120
    assert not [line for line in lines if "<class" in line or " object at " in line]
    assert lines[-1].endswith(f"All options: python -m {name} --help all")


def test_all_of_the_help_has_lightnings_options_under_a_heading_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fit.main(["--help", "all"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "\ntrainer: arguments of Lightning's Trainer:\n" in text and "--trainer.gradient_clip_val" in text
    assert "<class 'lightning" not in text
