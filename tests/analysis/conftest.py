"""These tests run their folds in this process."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _one_core(one_core: None) -> None:
    """See `one_core`."""
