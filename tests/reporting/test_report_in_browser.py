"""The report in a real browser: cells are clicked, images appear, by mouse and keyboard, wide, narrow and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from fmnist_cv import CrossValidationResult

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="Chromium or its driver is not installed (Debian: apt-get install chromium chromium-driver)",
)

FLAGS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "disable-dev-shm-usage",
)

# of a node: the share of its pixels that are not of one colour, drawn on a canvas as its background shows them
PICTURE = """
const node = arguments[0], done = arguments[1], style = getComputedStyle(node), image = new Image();
image.onload = () => {
  const tile = [node.offsetWidth, node.offsetHeight], canvas = new OffscreenCanvas(...tile), c = canvas.getContext("2d");
  const scale = parseFloat(style.backgroundSize) / image.width, [x, y] = style.backgroundPosition.split(" ").map(parseFloat);
  c.imageSmoothingEnabled = false;
  c.drawImage(image, x, y, image.width * scale, image.height * scale);
  const pixels = c.getImageData(0, 0, ...tile).data;
  done([...tile, [...pixels.filter((_, i) => i % 4 === 0)]]);
};
image.src = style.backgroundImage.slice(5, -2);
"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(started: Any, garments: CrossValidationResult) -> Iterator[Any]:
    """The report of the garments, freshly opened; fails afterwards where the console has a warning or an error."""
    show(started, garments.path / "report.html", width=1200)
    yield started
    assert started.get_log("browser") == []


def show(browser: Any, page: Path, *, width: int, dark: bool = False) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    browser.get(page.as_uri())


def find(browser: Any, selector: str) -> Any:
    return browser.find_element(By.CSS_SELECTOR, selector)


def find_all(browser: Any, selector: str) -> list[Any]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


def cell(browser: Any, row: int, column: int) -> Any:
    return find(browser, f"#confusion [data-row='{row}'][data-column='{column}']")


def matrix(browser: Any) -> list[list[str]]:
    texts = browser.execute_script(
        "return [...document.querySelectorAll('#confusion button')].map((b) => b.textContent)"
    )
    return np.reshape(["0" if text == "·" else text for text in texts], (10, 10)).tolist()


def mistakes(report: dict[str, Any]) -> tuple[int, int, int]:
    """(row, column, count) of the most frequent mistake."""
    counts = np.array(report["confusion_matrix"])
    np.fill_diagonal(counts, 0)
    row, column = np.unravel_index(counts.argmax(), counts.shape)
    return int(row), int(column), int(counts.max())


def show_all(browser: Any) -> list[Any]:
    while (more := find(browser, "#more")).is_displayed():
        more.click()
    return find_all(browser, "#cell .tile")


def test_a_click_on_a_cell_shows_its_images_with_probabilities(browser: Any, garments: CrossValidationResult) -> None:
    labels, predicted = garments.labels, garments.out_of_fold()[0].argmax(1)
    names = garments.summary["data"]["class_names"]
    wrong = np.argwhere(np.array(garments.summary["out_of_fold_report"]["confusion_matrix"]) * (1 - np.eye(10)))
    for row, column in wrong[:: max(1, len(wrong) // 6)].tolist():
        cell(browser, row, column).click()
        images = np.flatnonzero((labels == row) & (predicted == column))
        assert cell(browser, row, column).get_attribute("aria-pressed") == "true"
        title = find(browser, "#cell-title").text
        assert (
            title
            == f"{names[row]}, classified as {names[column]}: {len(images)} image{'s' if len(images) != 1 else ''}"
        )
        tiles = show_all(browser)
        numbers = sorted(int(tile.get_attribute("aria-label").split(":")[0].removeprefix("Image ")) for tile in tiles)
        assert numbers == images.tolist()
        first = tiles[0].text.splitlines()
        confidence = garments.out_of_fold()[0, images].max()
        assert first[0] == names[column] and abs(float(first[1].strip("<>% ")) - 100 * confidence) < 1
        assert f"✓ {names[row]}" in first


def test_the_picture_is_the_very_image(browser: Any, garments: CrossValidationResult) -> None:
    for tile in (find_all(browser, "#cell .tile")[-1], find_all(browser, "#issues .tile")[0]):
        number = int(tile.get_attribute("aria-label").split(":")[0].removeprefix("Image "))
        image = garments.data.train_images.images[number, 0].numpy()
        browser.execute_script("arguments[0].scrollIntoView()", tile)
        width, height, pixels = browser.execute_async_script(PICTURE, tile.find_element(By.CSS_SELECTOR, ".picture"))
        assert (width, height) == (84, 84)
        assert (np.reshape(pixels, (84, 84))[1::3, 1::3] == image).all()


def test_out_of_fold_and_test_counts_and_rates(browser: Any, garments: CrossValidationResult) -> None:
    for part in ("out_of_fold", "test"):
        report = garments.summary[f"{part}_report"]
        counts = np.array(report["confusion_matrix"])
        find(browser, f"input[value={part}]").click()
        find(browser, "input[value=count]").click()
        assert np.array(matrix(browser), dtype=int).tolist() == counts.tolist()
        row, column, n = mistakes(report)
        cell(browser, row, column).click()
        assert len(show_all(browser)) == n
        find(browser, "input[value=rate]").click()
        rates = 100 * counts / counts.sum(1, keepdims=True)
        np.testing.assert_allclose(np.array(matrix(browser), dtype=float), rates, atol=0.0501)
        assert cell(browser, row, column).get_attribute("aria-pressed") == "true"


def test_the_diagonal_shows_a_sample(browser: Any, garments: CrossValidationResult) -> None:
    right = np.diag(garments.summary["out_of_fold_report"]["confusion_matrix"])
    most = int(right.argmax())
    cell(browser, most, most).click()
    assert len(show_all(browser)) == min(24, right[most])
    assert "random sample" in find(browser, "#cell-note").text


def test_everything_can_be_done_by_keyboard(browser: Any, garments: CrossValidationResult) -> None:
    def press(*keys: str) -> Any:
        browser.switch_to.active_element.send_keys(*keys)
        return browser.switch_to.active_element

    find(browser, "input[name=unit][value=count]").send_keys(Keys.ARROW_RIGHT)  # radios: arrows choose
    assert find(browser, "input[value=rate]").is_selected()
    at = press(Keys.TAB)
    pressed = find(browser, "#confusion [aria-pressed=true]")
    assert at == pressed  # Tab enters the matrix once, at the chosen cell
    assert len(find_all(browser, "#confusion [tabindex='0']")) == 1
    press(Keys.HOME)
    for _ in range(12):  # further than there are rows
        at = press(Keys.ARROW_UP)
    assert at == cell(browser, 0, 0)
    press(Keys.ENTER)
    row, column, _ = mistakes(garments.summary["out_of_fold_report"])
    for _ in range(row):
        press(Keys.ARROW_DOWN)
    for _ in range(column):
        press(Keys.ARROW_RIGHT)
    at = browser.switch_to.active_element
    assert at == cell(browser, row, column)
    assert browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", at) == "solid"
    press(Keys.ENTER)
    names = garments.summary["data"]["class_names"]
    assert find(browser, "#cell-title").text.startswith(f"{names[row]}, classified as {names[column]}")
    at = press(Keys.TAB)
    assert at == find_all(browser, "#cell .tile")[0]
    press(Keys.ENTER)
    dialog = find(browser, "#detail")
    assert dialog.is_displayed() and "Training image " in dialog.text and "held out in fold_" in dialog.text
    assert len(dialog.find_elements(By.CSS_SELECTOR, ".chance")) == 10
    press(Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert browser.switch_to.active_element == at  # the focus comes back


def test_findings_are_shown(browser: Any, garments: CrossValidationResult) -> None:
    confident = [tile.get_attribute("aria-label") for tile in find_all(browser, "#mistakes .tile")]
    assert confident and all("classified as" in label for label in confident)
    out_of_fold = garments.out_of_fold()[0]
    wrong = np.flatnonzero(out_of_fold.argmax(1) != garments.labels)
    surest = wrong[out_of_fold[wrong].max(1).argmax()]
    assert confident[0].startswith(f"Image {surest}:")
    assert len(find_all(browser, "#issues > .gallery")) == 2 and len(find_all(browser, "#issues .tile")) >= 10
    assert len(find_all(browser, "#curves svg")) == 2 and len(find_all(browser, "#calibration svg")) == 2
    assert len(find_all(browser, "#folds .dot")) == 2
    assert all(svg.get_attribute("aria-label") for svg in find_all(browser, "svg"))


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_can_be_read_in_light_and_dark(
    started: Any, garments: CrossValidationResult, dark: bool
) -> None:
    show(started, garments.path / "report.html", width=390, dark=dark)
    page_width, window_width = started.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert page_width == window_width <= 390
    beyond = started.execute_script(
        "return [...document.querySelectorAll('#confusion button, .tile, svg, h2, p')].filter((node) => "
        "node.getBoundingClientRect().right > document.documentElement.clientWidth).length"
    )
    assert beyond == 0  # ten classes need no scrolling
    background, ink = started.execute_script(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    )
    assert contrast(background, ink) > 7
    worst = started.execute_script(CELLS_AS_DRAWN)
    assert min(contrast(*pair) for pair in worst) > 4
    assert started.get_log("browser") == []


# [background, text] of each cell of the matrix that holds a number, as sRGB
CELLS_AS_DRAWN = """
const c = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
const drawn = (colour) => { c.fillStyle = colour; c.fillRect(0, 0, 1, 1); return `rgb(${[...c.getImageData(0, 0, 1, 1).data].slice(0, 3)})`; };
return [...document.querySelectorAll("#confusion button:not(.none)")].map((cell) => {
  const style = getComputedStyle(cell); return [drawn(style.backgroundColor), drawn(style.color)]; });
"""


def contrast(a: str, b: str) -> float:
    """WCAG's contrast ratio of two CSS colours rgb(r, g, b)."""

    def luminance(colour: str) -> float:
        channels = np.array([float(v) for v in colour.removeprefix("rgb(").rstrip(")").split(",")]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
