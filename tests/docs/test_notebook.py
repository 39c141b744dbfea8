"""The notebook of the documentation: committed with its outputs, small, and it runs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "notebooks" / "compare_two_networks.ipynb"


def code_cells() -> list[dict[str, Any]]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_it_is_committed_with_its_outputs_and_small() -> None:
    assert NOTEBOOK.stat().st_size < 500_000
    assert [cell["execution_count"] for cell in code_cells()] == [*range(1, len(code_cells()) + 1)]
    kinds = {output["output_type"] for cell in code_cells() for output in cell["outputs"]}
    assert kinds == {"display_data", "execute_result", "stream"}  # and no error
    assert sum("image/png" in output.get("data", {}) for cell in code_cells() for output in cell["outputs"]) >= 4


def test_its_outputs_name_no_folder_of_a_machine() -> None:
    texts = [
        str(output.get("text", output.get("data", {}).get("text/plain")))
        for cell in code_cells()
        for output in cell["outputs"]
    ]
    assert [text for text in texts if re.search(r"/(home|root|tmp|work|Users)/|[A-Z]:\\", text)] == []


@pytest.mark.slow
def test_it_runs_on_fashion_mnist(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    from fmnist_cv import FashionMNISTDataModule
    from fmnist_cv.errors import DataNotFound

    try:
        FashionMNISTDataModule(download=False).load(train=True)
    except DataNotFound:
        pytest.skip("Fashion-MNIST is not there: set FMNIST_CV_DATA")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    client = NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=environment)
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "corrected t-test" in printed
