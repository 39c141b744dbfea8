"""`fmnist-cv COMMAND`: commands, suggestions, completion, and how errors of users are shown."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from fmnist_cv import evaluate, report
from fmnist_cv.command_line import COMMANDS, INTERRUPTED, OK, USER_ERROR, command, main, print_files
from fmnist_cv.completion import script as completion_script
from fmnist_cv.errors import UserError
from fmnist_cv.utils.user_text import make_console

Output = pytest.CaptureFixture[str]


def test_the_commands_are_listed_with_a_line_each(capsys: Output) -> None:
    for arguments in ([], ["--help"]):
        assert main(arguments) == OK
        out = capsys.readouterr().out
        assert all(f"  {name:10} {what}\n" in out for name, what in COMMANDS.items())
    assert main(["--version"]) == OK
    assert capsys.readouterr().out == f"fmnist-cv {version('fmnist_cv')}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compere"], "'compere' is not a command of fmnist-cv; did you mean 'compare'? The commands are fit, tune, "),
        (["zzz", "--help"], "'zzz' is not a command of fmnist-cv; the commands are fit, tune, "),
        (["--print_completion"], "the shell of --print_completion is missing; give one of bash, zsh"),
        (["--print_completion=fish"], "the shell of --print_completion is 'fish'; give one of bash, zsh"),
    ],
)
def test_a_misspelt_command_is_a_user_error(arguments: list[str], message: str, capsys: Output) -> None:
    assert main(arguments) == USER_ERROR
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}") and captured.err.count("\n") == 1 and captured.out == ""


def test_a_command_gets_the_rest_of_the_line_and_gives_its_status(capsys: Output) -> None:
    assert main(["report", "nowhere"]) == report.main(["nowhere"]) == USER_ERROR
    first, second = capsys.readouterr().err.splitlines()
    assert first == second and first.startswith("error: there is no run nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["a", "--modell=best"],
            "'modell' is not an option; did you mean 'model'? See python -m fmnist_cv.evaluate",
        ),
        (
            ["a", "--model=bets"],
            "--model: invalid choice: 'bets' (choose from 'ensemble', 'best', 'refit'); see python",
        ),
        ([], "the following arguments are required: RUN; see python -m fmnist_cv.evaluate --help"),
    ],
)
def test_wrong_options_are_a_line(arguments: list[str], message: str, capsys: Output) -> None:
    assert evaluate.main(arguments) == USER_ERROR
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


def test_user_errors_and_interruptions_have_a_message_and_a_status(capsys: Output) -> None:
    def run(arguments: list[str]) -> int:
        raise {"user": UserError("no"), "ctrl-c": KeyboardInterrupt()}[arguments[0]]

    decorated = command(if_interrupted="nothing was written")(run)
    assert decorated(["user"]) == USER_ERROR and capsys.readouterr().err == "error: no\n"
    assert decorated(["ctrl-c"]) == INTERRUPTED
    assert capsys.readouterr().err == "\ninterrupted; nothing was written\n"


def test_files_are_printed_in_columns(capsys: Output) -> None:
    print_files(make_console(), [("Run", Path("a b")), ("Label issues", "[bold]c")])
    assert capsys.readouterr().out == "Run:           a b\nLabel issues:  [bold]c\n"


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "script.sh"
    path.write_text(completion_script(["bash"], COMMANDS), encoding="utf-8")
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", [*COMMANDS]),
        ("com", ["compare"]),
        ("fit --cv.n_", ["--cv.n_splits", "--cv.n_repeats"]),
        ("fit --trainer.max_ep", ["--trainer.max_epochs"]),
        ("tune --tri", ["--trials"]),
        ("predict RUN --pre", ["--preprocessing"]),
        ("export RUN --format ", ["onnx", "safetensors"]),
        ("evaluate RUN --model b", ["best"]),
        ("report ", []),
    ],
)
def test_bash_completes(completion: Path, line: str, expected: list[str], tmp_path: Path) -> None:
    words = ["fmnist-cv", *line.split(" ")]
    listed = " ".join(f"'{word}'" for word in words)
    code = f"source '{completion}'; COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; _fmnist_cv; "
    ended = subprocess.run(
        ["bash", "--norc", "-c", code + 'printf "%s\\n" "${COMPREPLY[@]}"'], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(ended.stdout.split()) == sorted(expected)
