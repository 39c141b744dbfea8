"""Without an extra's packages, what needs them says which to install, and everything else works."""

from __future__ import annotations

import ast
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from fmnist_cv import export, fit, report
from fmnist_cv.errors import UserError
from fmnist_cv.inference import load_exported
from fmnist_cv.search.page import _plots
from fmnist_cv.utils.optional import EXTRAS

ROOT = Path(__file__).parents[1]
Block = Callable[[str], None]


@pytest.mark.parametrize(
    ("package", "arguments", "message"),
    [
        ("cleanlab", [], "Finding label errors needs the package cleanlab: pip install 'fmnist_cv[report]'"),
        ("onnx", ["--format=onnx"], "ONNX needs the package onnx: pip install 'fmnist_cv[onnx]'"),
        ("onnxruntime", ["--format=onnx"], "ONNX needs the package onnxruntime: pip install 'fmnist_cv[onnx]'"),
        (
            "safetensors",
            ["--format=safetensors"],
            "The safetensors format needs the package safetensors: pip install 'fmnist_cv[safetensors]'",
        ),
    ],
)
def test_a_command_says_what_to_install(
    package: str,
    arguments: list[str],
    message: str,
    standard: Path,
    tmp_path: Path,
    without_package: Block,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Path(shutil.copytree(standard, tmp_path / "run", symlinks=True))
    without_package(package)
    assert (export if arguments else report).main([str(run), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"error: {message}\n"
    assert not list(run.rglob("exports/**/model.onnx")) and not (run / "report.html").exists()


def test_safetensors_are_read_with_their_package_only(without_package: Block, tmp_path: Path) -> None:
    (tmp_path / "network.json").write_text(json.dumps({"format": 1}))
    without_package("safetensors")
    with pytest.raises(UserError, match=r"pip install 'fmnist_cv\[safetensors\]'"):
        load_exported(tmp_path)


def test_a_run_is_complete_without_its_report(
    quick: dict[str, Any],
    write_config: Callable[[dict[str, Any]], Path],
    without_package: Block,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quick["cv"]["holdout"] = 0.3
    quick["trainer"]["max_epochs"] = 1
    quick["report"] = True
    without_package("cleanlab")
    assert fit.main(["--config", str(write_config(quick)), "--run", "run"]) == 0
    run = Path(quick["log_dir"]) / "tiny" / "run"
    assert (run / "results.json").exists() and not (run / "report.html").exists()
    assert "cleanlab: pip install 'fmnist_cv[report]'" in capsys.readouterr().err


def test_a_studys_plots_say_what_to_install(without_package: Block) -> None:
    without_package("plotly")
    with pytest.raises(
        UserError, match=r"Plotting a study needs the package plotly: pip install 'fmnist_cv\[report\]'"
    ):
        _plots(optuna.create_study())


def test_a_config_that_names_a_missing_package_says_what_to_install(
    without_package: Block, capsys: pytest.CaptureFixture[str]
) -> None:
    without_package("kornia")
    assert fit.main(["--config", str(ROOT / "configs" / "photos.yaml")]) == 2
    reason = "the package kornia is not installed: pip install 'fmnist_cv[augmentation]'"
    assert reason in capsys.readouterr().err


def test_each_package_is_in_the_extra_that_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for package, extra in EXTRAS.items():
        assert any(r.startswith(package) for r in project["optional-dependencies"][extra]), package
        assert not any(r.startswith(package) for r in project["dependencies"]), package


def test_no_module_imports_an_extra_when_it_is_imported() -> None:
    for path in (ROOT / "fmnist_cv").rglob("*.py"):
        for node in ast.parse(path.read_bytes()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & EXTRAS.keys(), path
