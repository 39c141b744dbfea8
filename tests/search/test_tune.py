"""The command in real processes that are interrupted and killed, with a journal and with a PostgreSQL server."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import yaml
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from running import Commands, Started

from fmnist_cv import fit
from fmnist_cv.search.storage import StudyStorage
from fmnist_cv.search.trials import MAX_DEATHS
from fmnist_cv.tune import main

Search = dict[str, Any]


def start(searched: Search, folder: Path, *arguments: object) -> subprocess.Popen[str]:
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(searched))
    command = [sys.executable, "-m", "fmnist_cv.tune", f"--config={path}", *map(str, arguments)]
    # a shell that runs the tests in the background has SIGINT ignored, which its children inherit
    hear = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGINT, hear)


def start_forked(commands: Commands, searched: Search, folder: Path, *arguments: object) -> Started:
    """The same without the time that it takes to import everything."""
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(searched))
    return commands.start(f"--config={path}", *arguments, command="tune", folder=folder)


def folds_of(command: subprocess.Popen[str] | Started) -> list[psutil.Process]:
    """The processes that train folds just now: descendants of the command's fork server."""
    try:
        servers = psutil.Process(command.pid).children()
        servers = [server for server in servers if "resource_tracker" not in " ".join(server.cmdline())]
        return [fold for server in servers for fold in server.children()]
    except psutil.Error:
        return []


def kill_a_fold(command: Started, chance: random.Random) -> bool:
    folds = folds_of(command)
    if not folds:
        return False
    try:
        chance.choice(folds).kill()
    except psutil.Error:
        return False
    return True


def check_every_trial_finished_once(study: optuna.Study, n_trials: int) -> None:
    trials = study.get_trials()
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    assert len(complete) == n_trials
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.FAIL}  # none RUNNING, none WAITING
    # interrupted trials were re-queued once, with their parameters
    retried = [number for t in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(t)[-1:]]
    assert sorted(retried) == [t.number for t in trials if t.state == TrialState.FAIL]
    for trial in complete:
        for number in RetryHeartbeatStaleTrialCallback.retry_history(trial):
            # a trial that was killed while it was being drawn has only its first parameters
            assert trials[number].params.items() <= trial.params.items()
    assert all(len(t.intermediate_values) == 3 for t in complete)
    assert len({str(t.params) for t in complete}) == n_trials


def opened(where: str) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=StudyStorage(where, workers=1).storage)


def test_the_command_prints_and_writes_its_results(
    searched: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    searched |= {"trials": 2, "confirm": {"top": 1, "n_splits": 2, "n_repeats": 1}}
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(searched))
    assert main([f"--config={tmp_path / 'search.yaml'}", "--workers=2"]) == 0
    out = capsys.readouterr().out
    assert "2 of 2 completed, 0 of them pruned" in out and "best 0." in out
    assert "(winner)" in out and "baseline" in out and "Winner minus baseline" in out
    folder = tmp_path / "logs" / "study"
    summary = json.loads((folder / "search.json").read_text())
    (found,) = summary["confirmed"]["configurations"]
    assert found["trial"] == summary["winner"]["trial"]
    assert found["gap"] == pytest.approx(summary["winner"]["accuracy"] - found["fresh"]["mean"])
    assert (folder / found["run"] / "best.ckpt").exists() and (folder / found["run"] / "report.md").exists()
    page = (folder / "study.html").read_text()
    warning = "SYNTHETIC data: generated images, not Fashion-MNIST; these scores say nothing about real images."
    assert f"\n{warning}\n" in out and "on SYNTHETIC garments (300 images), 3 folds each" in out
    assert "<title>SYNTHETIC: study" in page and warning in page
    assert summary["data"]["name"] == "SYNTHETIC garments"
    assert "Parallel coordinates" in page and "http-equiv" not in page
    assert list((folder / "tensorboard").glob("trial_000*"))
    for trial in (folder / "tensorboard").glob("trial_000*"):
        assert warning.encode() in b"".join(path.read_bytes() for path in trial.iterdir())
    winner = (folder / "winner.yaml").read_text()
    assert winner.startswith(f"# {warning}\n")
    with pytest.raises(SystemExit) as ended:
        fit.main(["--config", str(folder / "winner.yaml"), "--print_config"])
    assert ended.value.code in (0, None)
    assert f"dropout: {yaml.safe_load(winner)['model']['init_args']['dropout']}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--trials", "none"], "trials"),
        (["--storage", "sqlite:///a.db", "--workers", "2"], "SQLite locks the whole file"),
        (["--workers", "0"], "--workers is 0"),
        (["--sampler", "grid"], "has infinitely many values"),
        (["--trails", "3"], "trails"),
    ],
)
def test_a_user_error_ends_with_status_2(
    searched: Search,
    tmp_path: Path,
    arguments: list[str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    space = {"model.dropout": {"float": [0.0, 0.5]}}  # smaller, so that it is checked faster
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(searched | {"space": space}))
    assert main(["--config=search.yaml", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and reason in err and "Traceback" not in err


def test_ctrl_c_stops_everything_and_the_command_resumes(searched: Search, tmp_path: Path) -> None:
    command = start(searched, tmp_path, "--workers", 2)
    journal = tmp_path / "logs" / "study" / "study.journal"
    while not folds_of(command):
        assert command.poll() is None
        time.sleep(0.05)
    os.kill(command.pid, signal.SIGINT)
    out, err = command.communicate(timeout=60)
    assert command.returncode == 130, out + err
    assert "interrupted; run the same command again to resume the study" in err and "Traceback" not in err
    before = opened(str(journal)).get_trials()
    assert {t.state for t in before} <= {TrialState.FAIL, TrialState.COMPLETE}
    assert main([f"--config={tmp_path / 'search.yaml'}", "--workers=2", "--trials=3"]) == 0
    check_every_trial_finished_once(opened(str(journal)), 3)


def test_two_commands_share_a_study(commands: Commands, searched: Search, tmp_path: Path) -> None:
    searched |= {"log_dir": "logs"}  # relative to where each is started
    both = [start_forked(commands, searched, tmp_path, "--workers", 1) for _ in range(2)]
    ended = []
    for command in both:
        out, err = command.communicate(timeout=240)
        assert command.returncode == 0, out + err
        ended.append(sum(line.startswith("trial ") and ": fold " not in line for line in out.splitlines()))
    study = opened(str(tmp_path / "logs" / "study" / "study.journal"))
    assert [t.state for t in study.get_trials()] == [
        TrialState.COMPLETE
    ] * 4  # none twice, none interrupted by the other
    assert sum(ended) == 4 and all(ended)


def survive(
    commands: Commands,
    searched: Search,
    tmp_path: Path,
    where: str,
    storage: list[str],
    n_rounds: int,
    after_kill: Any = None,
    while_running: Any = None,
) -> None:
    """Kill folds and the command itself repeatedly; then check the study."""
    chance, killed = random.Random(0), 0
    for round_ in range(n_rounds):
        command = start_forked(commands, searched, tmp_path, "--workers", 4, *storage)
        now = 0
        while command.poll() is None and not folds_of(command):
            time.sleep(0.1)
        began = time.monotonic()
        while command.poll() is None and (round_ == n_rounds - 1 or time.monotonic() - began < 4):
            time.sleep(0.4)
            # a fold that dies more often than this without an epoch in between fails its trial
            now += now < MAX_DEATHS and kill_a_fold(command, chance)
            if while_running is not None and folds_of(command):
                while_running()
                while_running = None
        killed += now
        if round_ < n_rounds - 1 and command.poll() is None:
            os.kill(command.pid, signal.SIGKILL)
            command.wait()
            if after_kill is not None:
                after_kill()
    out, err = command.communicate(timeout=240)
    assert command.returncode == 0, out + err
    assert killed >= 3
    check_every_trial_finished_once(opened(where), searched["trials"])


def test_four_workers_survive_being_killed(commands: Commands, searched: Search, tmp_path: Path) -> None:
    journal = tmp_path / "logs" / "study" / "study.journal"

    def tear() -> None:
        with open(journal, "ab") as file:
            file.write(b'{"op_code":5,"worker_id":"torn')

    survive(commands, searched | {"trials": 6}, tmp_path, str(journal), [], n_rounds=3, after_kill=tear)


# -- PostgreSQL ---------------------------------------------------------------------------------------------


class Server:
    """A PostgreSQL server of our own, on a free port."""

    def __init__(self, folder: Path) -> None:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
        found = shutil.which("pg_ctl") or (str(programs[-1]) if programs else None)
        if found is None:
            pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
        self.programs, self.data = Path(found).parent, folder / "data"
        self.as_user: list[str] = []
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(folder, "postgres")
            self.as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.do("initdb", "-D", self.data, "-U", "tester", "--auth=trust", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://tester@127.0.0.1:{self.port}/postgres"

    def do(self, program: str, *arguments: object) -> None:
        command = [*self.as_user, str(self.programs / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.data.parent)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self.do("pg_ctl", "-D", self.data, "-o", options, "-l", self.data / "log", "-w", "start")

    def stop(self) -> None:
        self.do("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # pytest's own is closed to other users
        made = Server(Path(folder))
        yield made
        made.stop()


def test_a_study_in_postgresql_survives_kills_and_a_restart_of_the_server(
    commands: Commands, searched: Search, tmp_path: Path, server: Server
) -> None:
    def restart() -> None:
        server.stop()
        server.start()

    survive(commands, searched, tmp_path, server.url, ["--storage", server.url], n_rounds=2, while_running=restart)
