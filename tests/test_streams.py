"""A command's standard output may be closed, full, or lose its reader: it works on, and there is no traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from fmnist_cv import fit
from fmnist_cv.streams import lasting_output

COMMANDS = ("fit", "tune", "predict", "evaluate", "export", "compare", "report", "replicate")


def without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


OUTPUTS: dict[str, Callable[[], int | None]] = {
    "closed": lambda: None,
    "without a reader": without_reader,
    "full": lambda: os.open("/dev/full", os.O_WRONLY),
}


@pytest.fixture(params=OUTPUTS)
def output(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard output as a shell would give it: a line is written as soon as it is there, the rest at the end."""
    descriptor = OUTPUTS[request.param]()
    if descriptor is None:
        monkeypatch.setattr(sys, "stdout", None)
        yield
        return
    with open(descriptor, "w", buffering=1, encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        yield


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_print_to_nobody(command: str, output: None) -> None:
    main: Any = import_module(f"fmnist_cv.{command}").main
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0


def test_all_commands_are_tested() -> None:
    modules = [path.stem for path in Path(fit.__file__).parent.glob("*.py") if "def main(" in path.read_text("utf-8")]
    assert sorted(modules) == sorted(COMMANDS)


def test_training_goes_on_and_its_results_are_written(
    tiny: dict[str, Any], tmp_path: Path, output: None, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny["cv"]["holdout"] = 0.3
    tiny["trainer"] |= {"logger": False, "max_epochs": 2}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    assert fit.main(["--config", str(tmp_path / "tiny.yaml"), "--run", "unseen"]) == fit.OK
    assert (tmp_path / "logs" / "tiny" / "unseen" / "report.html").is_file()
    assert capfd.readouterr().err == ""


def test_no_file_gets_a_closed_descriptor_on_which_others_print(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        for descriptor in range(3):
            os.close(descriptor)
        with lasting_output():
            number = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
        os._exit(number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) >= 3


def test_output_that_works_is_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with lasting_output():
        print("seen")
        assert sys.stdout.isatty() == before[0].isatty()
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "seen\n"
