"""A command's standard output may be closed, full, or lose its reader: it continues, without a traceback."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from fmnist_cv import command_line, fit
from fmnist_cv.analysis.tables import rich_table
from fmnist_cv.command_line import OK
from fmnist_cv.utils.streams import lasting_output
from fmnist_cv.utils.user_text import make_console

COMMANDS = ("fit", "tune", "predict", "evaluate", "export", "compare", "report", "cache")


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
def use_output(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """To be called in the test, since pytest sets sys.stdout when a fixture is made. Then standard output is as a shell
    would give it: a line is written as soon as it is there, the rest at the end."""
    descriptor = OUTPUTS[request.param]()
    if descriptor is None:
        yield lambda: monkeypatch.setattr(sys, "stdout", None)
        return
    with open(descriptor, "w", buffering=1, encoding="utf-8") as stream:
        yield lambda: monkeypatch.setattr(sys, "stdout", stream)


@pytest.mark.parametrize("module", [*(f"fmnist_cv.{name}" for name in COMMANDS), "experiments.replication.__main__"])
def test_every_command_prints_without_a_reader(module: str, use_output: Callable[[], None]) -> None:
    main: Any = import_module(module).main
    use_output()
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0


def test_all_commands_are_tested() -> None:
    modules = {path.stem for path in Path(fit.__file__).parent.glob("*.py") if "def main(" in path.read_text("utf-8")}
    assert modules - {"command_line"} == set(COMMANDS)
    assert {*command_line.COMMANDS} == set(COMMANDS)


def test_training_goes_on_and_its_results_are_written(
    tiny: dict[str, Any], tmp_path: Path, use_output: Callable[[], None], capfd: pytest.CaptureFixture[str]
) -> None:
    tiny["cv"]["holdout"] = 0.3
    tiny["trainer"] |= {"logger": False, "max_epochs": 2}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    use_output()
    assert fit.main(["--config", str(tmp_path / "tiny.yaml"), "--run", "unseen"]) == OK
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


def test_letters_that_the_locale_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with lasting_output():
        print("90.1 ± 0.2, чулок")
        make_console().print(rich_table("größe", ["靴"], [["1"]]))
    lines = written.getvalue().decode("ascii").splitlines()
    assert lines[0] == r"90.1 \xb1 0.2, \u0447\u0443\u043b\u043e\u043a"
    assert lines[1].strip() == r"gr\xf6\xdfe" and any(r"\u9774" in line for line in lines)


def test_output_that_works_is_left_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with lasting_output():
        print("seen")
        assert sys.stdout.isatty() == before[0].isatty()
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "seen\n"
