"""The page as a visitor has it: served by the command, in a headless browser that has no network.

The tests follow one visit from its beginning to its end; each says what it expects to find.
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("selenium", reason="needs the extra dev: pip install 'capjax[dev]'")
if importlib.util.find_spec("gradio") is None:  # slow to import, and the server does
    pytest.skip("needs the extra demo: pip install 'capjax[demo]'", allow_module_level=True)
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs a browser and its driver: apt-get install chromium chromium-driver",
)
PATIENCE = 90  # seconds, on a machine that is busy with other tests

# Contrast of a word's text on its background, as WCAG 2 defines it; colours that let the page
# through are laid over what is behind them, by the browser itself.
CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const word = document.querySelector('#captions .card .word');
const behind = [];
for (let e = word; e; e = e.parentElement) behind.unshift(getComputedStyle(e).backgroundColor);
const pixel = (colours) => {
  for (const c of colours) { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); }
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const light = (rgb) => rgb.map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = light(pixel(['white', ...behind]));
const ink = light(pixel([...['white', ...behind], getComputedStyle(word).color]));
return (Math.max(ground, ink) + 0.05) / (Math.min(ground, ink) + 0.05);
"""


@pytest.fixture(scope="module")
def server(run_directory, tmp_path_factory):
    """(process, address, folder for its temporary files, file of what it says)."""
    folder = tmp_path_factory.mktemp("served")
    environment = os.environ | {
        "TMPDIR": str(folder),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "http_proxy": "http://127.0.0.1:9",  # who is behind a proxy must reach his own machine
    }
    said = folder.parent / f"{folder.name}.txt"
    args = ["--checkpoint", str(run_directory), "--port", "0", "--scales", "0,1,2"]
    with said.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "capjax.demo", *args],
            env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
    line = process.stdout.readline()
    found = re.match(r"open (http://127\.0\.0\.1:\d+)/ in a browser", line)
    if not found:
        process.kill()
        pytest.fail(f"the server did not start: {line!r} {said.read_text()}")
    yield process, found[1], folder, said
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def browser(server, tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "headless=new",
        "no-sandbox",  # as root in a container it has none
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-background-networking",
        "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    browser.set_window_size(1280, 1000)
    browser.get(server[1])
    wait(browser, lambda: len(cards(browser)) == 2, "the captions of the first example")
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def picture(browser, tmp_path_factory):
    """A picture of the visitor's own, which is on the page."""
    path = tmp_path_factory.mktemp("pictures") / "mine.png"
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    drop(browser, path)
    wait(browser, lambda: len(cards(browser)) == 2, "the captions of a picture that was dropped")
    return path


def text_of(browser):
    return browser.find_element(By.ID, "captions").text


def cards(browser):
    return [e.text for e in browser.find_elements(By.CSS_SELECTOR, "#captions .card .caption")]


def wait(browser, found, what):
    """Until `found()` gives something true, which is returned."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        # What is looked for may not be there yet, or be replaced while it is looked at.
        with contextlib.suppress(NoSuchElementException, StaleElementReferenceException):
            if result := found():
                return result
        time.sleep(0.1)
    pytest.fail(
        f"in vain waited for {what}; the page: {browser.find_element(By.TAG_NAME, 'body').text}"
    )


def drop(browser, path):
    """Puts a file in place of the picture that is there."""
    browser.find_element(By.CSS_SELECTOR, "#picture button[aria-label='Remove Image']").click()
    wait(browser, lambda: "Drop a picture" in text_of(browser), "the page asks for a picture")
    browser.find_element(By.CSS_SELECTOR, "#picture input[type=file]").send_keys(str(path))


def slide(browser, *keys):
    browser.find_element(By.CSS_SELECTOR, "#gamma input[type=range]").send_keys(*keys)


def expected(answers, path, scale):
    """The words of both cards, as `answers` has them."""
    fragment = answers(str(path), scale).captions
    found = re.findall('<p class="caption">(.*?)</p>', fragment)
    return [re.sub("<.*?>", "", one) for one in found]


def test_a_visit_begins_with_an_example(browser):
    assert "γ = 2 · guided" in text_of(browser)
    assert len(browser.find_elements(By.CSS_SELECTOR, "#examples .gallery-item")) == 8
    assert "likelier with the picture" in browser.find_element(By.CSS_SELECTOR, ".legend").text


def test_a_picture_is_dropped_and_captioned(browser, picture, answers):
    assert cards(browser) == expected(answers, picture, 2.0)


def test_words_have_colours_and_numbers(browser, picture):
    words = browser.find_elements(By.CSS_SELECTOR, "#captions .card.guided .word")
    colours = {word.value_of_css_property("background-color") for word in words}
    assert len(colours) > 1
    assert all(re.match(r"rgba\((37, 99, 235|234, 115, 0), 0", colour) for colour in colours)
    assert re.match(r"“.+”: [\d.]+% with the picture", words[0].get_attribute("title"))
    assert browser.find_elements(By.CSS_SELECTOR, "#captions .card.guided .word.other")
    browser.find_element(By.CSS_SELECTOR, "#more button").click()
    rows = wait(
        browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#numbers tbody tr"), "numbers"
    )
    assert len(rows) >= len(words)
    assert "without it" in browser.find_element(By.ID, "numbers").text


def test_the_slider_guides(browser, picture, answers):
    slide(browser, Keys.END)
    wait(browser, lambda: "γ = 10 · guided" in text_of(browser), "the caption at 10")
    assert cards(browser) == expected(answers, picture, 10.0)
    assert "likely to degenerate" in text_of(browser)
    slide(browser, Keys.HOME, *[Keys.ARROW_RIGHT] * 3)
    wait(browser, lambda: "γ = 0.3 · guided" in text_of(browser), "the caption at 0.3")
    assert cards(browser) == expected(answers, picture, 0.3)


def test_captions_are_drawn_again(browser, picture):
    browser.find_element(By.CSS_SELECTOR, "#search button").click()
    chosen = "#search input[value=sampling]"
    wait(browser, lambda: browser.find_element(By.CSS_SELECTOR, chosen).is_displayed(), "choices")
    browser.find_element(By.CSS_SELECTOR, chosen).click()
    wait(browser, lambda: "same random numbers" in text_of(browser), "a sampled caption")
    before = cards(browser)
    wait(browser, lambda: browser.find_element(By.ID, "again").is_displayed(), "a button")
    browser.find_element(By.ID, "again").click()
    wait(browser, lambda: cards(browser) not in ([], before), "another one")


def test_what_does_not_decode_is_said_in_the_page(browser, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"this is no picture")
    drop(browser, broken)
    wait(browser, lambda: "broken.jpg cannot be decoded" in text_of(browser), "what is wrong")
    assert text_of(browser).endswith("choose another picture")
    assert "Traceback" not in browser.page_source
    browser.find_elements(By.CSS_SELECTOR, "#examples .gallery-item")[1].click()
    wait(browser, lambda: len(cards(browser)) == 2, "the captions of an example")


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_words_can_be_read_in_light_and_dark(browser, mode):
    feature = {"name": "prefers-color-scheme", "value": mode}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.refresh()
    wait(browser, lambda: len(cards(browser)) == 2, "captions")
    ground = "return getComputedStyle(document.body).backgroundColor"
    channels = [int(n) for n in re.findall(r"\d+", browser.execute_script(ground))[:3]]
    assert (sum(channels) > 3 * 128) == (mode == "light")
    for colour in ("37 99 235", "234 115 0"):
        strongest = f"background: rgb({colour} / 0.55)"
        browser.execute_script(
            "document.querySelector('#captions .card .word').style = arguments[0]", strongest
        )
        assert browser.execute_script(CONTRAST) > 4.5, "what WCAG 2 asks for, level AA"


def test_it_fits_a_phone(browser):
    phone = dict(width=360, height=740, deviceScaleFactor=2, mobile=True)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.refresh()
    wait(browser, lambda: len(cards(browser)) == 2, "captions")
    browser.find_element(By.CSS_SELECTOR, "#more button").click()
    table = "#numbers table"
    wait(browser, lambda: browser.find_element(By.CSS_SELECTOR, table).is_displayed(), "numbers")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_was_asked_of_another_machine(browser, server):
    asked = [
        json.loads(entry["message"])["message"]["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"]
    ]
    assert sum(url.startswith(server[1]) for url in asked) > 10
    elsewhere = [url for url in asked if url.startswith(("http", "ws", "//"))]
    assert [url for url in elsewhere if not url.startswith(server[1] + "/")] == []


def test_the_end_leaves_nothing_behind(browser, server):
    process, _, folder, said = server
    assert list(folder.glob("capjax-demo-*/**/*.png")), "what was dropped is kept until the end"
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 130
    assert list(folder.iterdir()) == []
    assert "Traceback" not in said.read_text()
