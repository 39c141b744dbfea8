"""What is published works where it is installed; the files of the project's services parse and call what exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return {path.suffix: path for path in folder.iterdir()}


def test_the_wheel_works_in_an_environment_of_its_own(built: dict[str, Path], tmp_path: Path) -> None:
    """The other packages come from the environment of the tests; this one must not."""
    env, bin_folder = tmp_path / "env", "Scripts" if sys.platform == "win32" else "bin"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True)
    python = env / bin_folder / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", python]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", built[".whl"]], check=True, cwd=tmp_path)
    packages = sysconfig.get_path("purelib", vars={"base": str(env)})
    Path(packages, "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*command: str | Path) -> str:
        clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=clean)
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = (
        "import sys, fmnist_cv\nfrom fmnist_cv import fit\nprint(fmnist_cv.__file__, fmnist_cv.__version__, sep='\\n')\n"
        "sys.exit(fit.main(['--config', 'quickstart', '--print_config']))"
    )
    path, version, config = run(python, "-c", code).split("\n", 2)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert Path(path).is_relative_to(env) and version == project["version"]
    assert yaml.safe_load(config)["name"] == "quickstart"
    for script in project.get("scripts", {}):
        assert "fit" in run(env / bin_folder / script, "--help")


def test_the_wheel_holds_all_that_is_read_from_it(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[".whl"]) as archive:
        names = set(archive.namelist())
    tracked = git("ls-files", "fmnist_cv", "configs")
    expected = {path if path.startswith("fmnist_cv/") else f"fmnist_cv/{path}" for path in tracked}
    assert expected <= names and "fmnist_cv/py.typed" in names
    others = {name for name in names - expected if ".dist-info/" not in name}
    assert not others


def test_the_sdist_holds_the_tests_and_no_results(built: dict[str, Path]) -> None:
    with tarfile.open(built[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"tests/conftest.py", "configs/quickstart.yaml", "constraints.txt", "LICENSE", "pyproject.toml"} <= names
    assert not [name for name in names if name.startswith(("experiments/", "lightning_logs/"))]


def git(*arguments: str) -> list[str]:
    try:
        found = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return found.stdout.splitlines()


# -- workflows, hooks and forms -----------------------------------------------------------------------------


def steps(workflow: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_commands_that_exist(workflow: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = [line for step in steps(workflow) for line in step.get("run", "").splitlines()]
    assert {line.split()[1] for line in lines if line.startswith("make ")} <= targets
    for path in re.findall(r"\btests/[\w/.]+", "\n".join(lines)):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_names_the_version_of_each_action(workflow: Path) -> None:
    actions = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert actions and all(re.search(r"@v\d+(\.\d+\.\d+)?$", action) for action in actions)


def test_ci_checks_what_the_workflow_checks() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    for command in ("make lint", "make docs", "make test"):
        assert re.search(rf"^{command}$", script, re.MULTILINE), command
        assert any(step.get("run") == command for step in steps(ROOT / ".github" / "workflows" / "ci.yml")), command


def test_a_release_is_published_without_a_token() -> None:
    publish = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"} and publish["environment"]["name"] == "pypi"
    assert not [step for step in publish["steps"] if "with" in step and "password" in step["with"]]


@pytest.mark.parametrize("form", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem)
def test_an_issue_form_has_what_its_format_requires(form: Path) -> None:
    content = yaml.safe_load(form.read_text())
    assert content["name"] and content["description"]
    ids = [field["id"] for field in content["body"]]
    assert len(set(ids)) == len(ids)
    for field in content["body"]:
        assert field["type"] in ("textarea", "input", "dropdown", "checkboxes") and field["attributes"]["label"]
        assert field["type"] != "dropdown" or all(isinstance(o, str) for o in field["attributes"]["options"])


def test_hooks_are_programs_of_the_projects_environment() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {"ruff", "ruff-format", "mypy"} <= {hook["id"] for hook in hooks}
    assert all(hook["language"] == "system" and hook["entry"].startswith(".venv/bin/") for hook in hooks)
