"""What the documents claim is what committed results say."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments.replication import plots
from experiments.replication.rows import load_rows
from experiments.replication.scores import RowResults
from experiments.replication.tables import write_tables

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "experiments" / "cross_validation"
SEARCH = ROOT / "experiments" / "search"
PRODUCTS = ROOT / "experiments" / "products"
DOCS = ROOT / "docs"
REPLICATION = ROOT / "experiments" / "replication"
CONFIGS = [*sorted((ROOT / "configs").glob("*.yaml")), PRODUCTS / "product-images.yaml"]
CLAIM = re.compile(
    r"expect +(test|validation) accuracy ([\d.]+) % \((?:sd ([\d.]+)(?:, (\d) seeds)?|1 seed)\) +\((experiments/[\w./-]+)\)"
)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda p: p.stem)
def test_a_config_expects_what_its_run_found(config: Path) -> None:
    row = load_rows().get(config.stem)
    if "expect    not run yet" in config.read_text():
        assert row and not (REPLICATION / row.table / f"{row.name}.json").exists()
        return
    claim = CLAIM.search(config.read_text())
    assert claim, f"{config.name}: its header names no expected score and the result file it comes from"
    if claim[5].startswith("experiments/replication"):
        assert row
        results = RowResults(row, REPLICATION)
        assert results.path == ROOT / claim[5]
        found = results.accuracy(next(iter(results.variants)), row.compare, row.epoch)
        assert claim[1] == row.compare and str(found) == (f"{claim[2]} ± {claim[3]}" if claim[3] else claim[2])
        assert found.n == int(claim[4] or 1)
    else:
        accuracy = json.loads((ROOT / claim[5]).read_text())["headline"]["accuracy"]
        assert (claim[2], claim[3]) == (f"{100 * accuracy['mean']:.2f}", f"{100 * accuracy['sd']:.2f}")


def test_the_replication_page_is_the_one_that_its_results_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots.Figure, "savefig", lambda *_, **__: None)  # the text is compared, not the pictures
    for table in ("published", "studies"):
        if (REPLICATION / table).exists():
            shutil.copytree(REPLICATION / table, tmp_path / "replication" / table)
    shutil.copytree(PRODUCTS, tmp_path / "products")
    assert write_tables(load_rows(), tmp_path / "replication").read_text() == (REPLICATION / "README.md").read_text()


def test_every_published_system_has_its_number_wherever_the_table_stands() -> None:
    page, shown = (REPLICATION / "README.md").read_text(), (DOCS / "replication.md").read_text()
    assert "not run yet" not in page + shown
    steps = {step["step"]: step for step in json.loads((PRODUCTS / "steps.json").read_text())["steps"]}
    ours = 100 * steps["as published"]["rest"]["accuracy"]
    for text in (page, shown):
        assert f"| sharifi-new-data | test | 11 | {ours:.2f} | 1 | better; not what it claims |  |" in text
    assert f"| 11 | {ours:.2f} (1 seed) | {ours - 11:+.2f} | better: " in page


def test_the_documentation_shows_the_replications_short_table() -> None:
    page, shown = (REPLICATION / "README.md").read_text(), (DOCS / "replication.md").read_text()
    table = page.split("## In short")[1].split("##")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) > 15
    assert [line for line in lines if line not in shown] == []


def test_the_readme_shows_the_kept_three_fold_run() -> None:
    results = json.loads((KEPT / "sharifi-cnn-k3.json").read_text())
    accuracy, readme = results["headline"]["accuracy"], (ROOT / "README.md").read_text()
    shown = [f"{100 * accuracy[key]:.2f}" for key in ("mean", "sd", "low", "high")]
    shown += [f"{100 * fold['last']['validation']['accuracy']:.2f}" for fold in results["folds"]]
    shown.append(f"{100 * results['ensemble']['last']['accuracy']:.2f}")
    assert [number for number in shown if number not in readme] == []


def test_kept_results_are_of_real_data_and_a_committed_state() -> None:
    for path in KEPT.glob("*.json"):
        results = json.loads(path.read_text())
        assert results["data"]["name"] == "FashionMNIST", path.name
        assert re.fullmatch("[0-9a-f]{40}", results["environment"]["commit"]), path.name


def test_the_speed_table_in_the_documentation_is_the_measured_one() -> None:
    measured = (ROOT / "experiments" / "speed" / "cpu-epyc.md").read_text()
    shown = (DOCS / "benchmarks.md").read_text()
    rows = [line for line in measured.splitlines() if line.startswith("| (")]
    assert rows
    assert [row for row in rows if row not in shown] == []


def test_the_table_of_photos_is_the_measured_one() -> None:
    measured = json.loads((ROOT / "experiments" / "speed" / "photos.json").read_text())
    rows = [line for line in measured["table"].splitlines() if line.startswith("| ")]
    for shown in (DOCS / "benchmarks.md", ROOT / "experiments" / "speed" / "README.md"):
        text = shown.read_text()
        assert [row for row in rows if row not in text] == [], shown.name
        assert f"commit {measured['commit'][:7]}" in text, shown.name


def test_the_cost_of_bf16_is_the_measured_one() -> None:
    found = json.loads((ROOT / "experiments" / "precision" / "annealed" / "comparison.json").read_text())
    low, high = found["corrected_interval_95"]
    assert found["inside_margin"] and found["margin"] == 0.003
    shown = " ".join((DOCS / "benchmarks.md").read_text().split())
    assert (
        f"{100 * found['difference']:.3f} points, corrected 95 % interval {100 * low:.3f} to +{100 * high:.3f}" in shown
    )


def page_of(folder: Path) -> Any:
    """A folder's page.py, which is no package's."""
    spec = importlib.util.spec_from_file_location(f"{folder.name}_page", folder / "page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_searches_is_the_one_that_their_results_make() -> None:
    assert page_of(SEARCH).page(SEARCH) == (SEARCH / "README.md").read_text()


def test_the_guide_states_what_searches_found() -> None:
    guide = (DOCS / "guides" / "search.md").read_text()
    assert page_of(SEARCH).summary(SEARCH) in " ".join(guide.split())


def test_the_page_of_product_photos_is_the_one_that_their_results_make() -> None:
    assert page_of(PRODUCTS).page(PRODUCTS) == (PRODUCTS / "README.md").read_text()
    shown = (DOCS / "replication.md").read_text()
    assert page_of(PRODUCTS).summary(PRODUCTS) in " ".join(shown.split())


@pytest.mark.parametrize("config", sorted((ROOT / "configs" / "search").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_search_expects_what_its_study_found(config: Path) -> None:
    header, kept = config.read_text(), SEARCH / config.stem / "search.json"
    if "expect    not run yet" in header:
        assert not kept.exists()
        return
    study = json.loads(kept.read_text())
    assert f"#   expect    {page_of(SEARCH).expected(study)}   ({kept.relative_to(ROOT)})" in header
    assert study["search"]["name"] == config.stem
    assert re.fullmatch("[0-9a-f]{40}", study["environment"]["commit"])
