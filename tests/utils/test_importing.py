"""Heavy imports are not searched for garbage, in the commands and in the server that forks folds."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from inspect import getsource
from typing import Any

import pytest

from fmnist_cv.command_line import COMMANDS
from fmnist_cv.utils.importing import heavy_imports


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the collector was on, at each call of `gc.freeze`; this process's own garbage is not kept."""
    calls: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(gc.isenabled()))
    return calls


def test_nothing_is_collected_meanwhile(monkeypatch: pytest.MonkeyPatch, frozen: list[bool]) -> None:
    monkeypatch.delitem(sys.modules, "lightning")
    with heavy_imports():
        assert not gc.isenabled() and not frozen
    assert gc.isenabled() and frozen == [False]


def test_an_import_that_fails_leaves_the_collector_on(monkeypatch: pytest.MonkeyPatch, frozen: list[bool]) -> None:
    monkeypatch.delitem(sys.modules, "lightning")
    with pytest.raises(ModuleNotFoundError), heavy_imports():
        import_module("no_such_module")
    assert gc.isenabled()


def test_what_is_there_already_is_left_alone(frozen: list[bool]) -> None:
    with heavy_imports():
        assert "lightning" in sys.modules and gc.isenabled()
    assert not frozen


def test_a_collector_that_is_off_stays_off(monkeypatch: pytest.MonkeyPatch, frozen: list[bool]) -> None:
    monkeypatch.delitem(sys.modules, "lightning")
    gc.disable()
    try:
        with heavy_imports():
            pass
        assert not gc.isenabled() and not frozen
    finally:
        gc.enable()


@pytest.mark.parametrize("name", [*(f"fmnist_cv.{name}" for name in COMMANDS), "fmnist_cv.engine.preloaded"])
def test_who_needs_lightning_imports_it_so(name: str) -> None:
    module: Any = import_module(name)
    needs_none = name in ("fmnist_cv.compare", "fmnist_cv.cache")
    assert ("with heavy_imports():" in getsource(module)) != needs_none
