"""What a person sees in a browser is what results.csv says: the report's page, and TensorBoard's HParams."""

import csv
import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from conftest import run_script

from mlpexp.store.file_names import UNDER_WAY
from mlpexp.tracking.live_curves import STATISTICS, LiveCurves, clean
from mlpexp.tracking.run_events import curve_titles

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="needs chromium and chromedriver on the PATH, to look at pages as a person does"
)
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium, to look at pages as a person does")

# a web component's texts lie in its shadow trees
TEXTS = """
const found = [];
const walk = node => {
  if (node.shadowRoot) walk(node.shadowRoot);
  for (const child of node.childNodes)
    if (child.nodeType === 3) found.push(child.data);
    else if (!['STYLE', 'SCRIPT'].includes(child.nodeName)) walk(child);
};
walk(document.body);
return found.join(' ');
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    place = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        words = ["-m", "name=s", "report=true", "trainer.max_epochs=1", "model.width=4,8", "seed=0,1"]
        ended = run_script("train.py", words)
    assert ended.code == 0, ended.err
    return place / "multirun/s"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    home = tmp_path_factory.mktemp("profile")
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1600,1200",
        f"--user-data-dir={home}",
    ):
        options.add_argument(word)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def tensorboard(sweep, tmp_path_factory):
    log = tmp_path_factory.mktemp("tensorboard") / "log"
    program = Path(sys.executable).parent / "tensorboard"
    words = [str(program), "--logdir", str(sweep), "--port", "0", "--reload_interval", "1"]
    with log.open("w") as opened, subprocess.Popen(words, stdout=opened, stderr=opened) as server:
        try:
            yield _address(server, log)
        finally:
            server.terminate()


def _address(server, log):
    """The address that it prints once it listens; it has read the runs when it knows them all."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        found = [word for word in log.read_text().split() if word.startswith("http://") and word.endswith("/")]
        if found:
            with urllib.request.urlopen(f"{found[-1]}data/runs") as answer:
                if answer.read().count(b"seed=") == 4:
                    return found[-1]
        time.sleep(0.3)
    raise AssertionError(log.read_text())


def rows(sweep):
    with (sweep / "results.csv").open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_the_page_shows_the_numbers_of_results_csv(sweep, browser):
    browser.get((sweep / "report/index.html").as_uri())
    shown = browser.execute_script(TEXTS)
    for width in ("4", "8"):
        values = [float(row["val/loss"]) for row in rows(sweep) if row["model.width"] == width]
        assert f"{sum(values) / len(values):.4f} ±" in shown
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("runs", [2, 12])
def test_tensorboard_shows_lines_under_way_until_they_are_removed(runs, sweep, tensorboard):
    """TensorBoard itself, whose loader is another program than the one in Python."""
    live = LiveCurves(sweep / UNDER_WAY, "the runs")
    times = range(8)

    def points(tag):
        lines = [line for line in answer(tensorboard, "data/runs") if line.startswith(f"{UNDER_WAY}/")]
        query = [urllib.parse.urlencode({"run": line, "tag": tag}) for line in lines]
        return [[point[1] for point in answer(tensorboard, f"data/plugin/scalars/scalars?{words}")] for words in query]

    def becomes(expected):
        deadline = time.monotonic() + 60
        while (shown := points("val/loss")) != expected and time.monotonic() < deadline:
            time.sleep(0.2)
        assert shown == expected

    def update(epochs, names):
        live.update({name: [{"val/loss": 1.0}] * epochs for name in names}, times, curve_titles())

    names = [f"run {i}" for i in range(runs)]
    lines = min(runs, len(STATISTICS))
    update(3, names)
    becomes([[0, 1, 2]] * lines)
    update(5, names)
    becomes([list(range(5))] * lines)
    live.close()
    becomes([])
    clean(sweep / UNDER_WAY)


def answer(address, path):
    try:
        with urllib.request.urlopen(f"{address}{path}") as opened:
            return json.load(opened)
    except urllib.error.HTTPError:  # the line has gone since, or its points are not read yet
        return []


def test_hparams_shows_the_numbers_of_results_csv(sweep, browser, tensorboard):
    browser.get(f"{tensorboard}#hparams")
    # five metrics are ticked from the start, by name; the others are a click away
    expected = [f"{float(row[name]):.5g}" for row in rows(sweep) for name in ("test/acc", "test/loss", "val/acc")]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        shown = browser.execute_script(TEXTS)
        if all(number in shown for number in expected):
            break
        time.sleep(0.3)
    missing = [number for number in expected if number not in shown]
    assert not missing, shown[-2000:]
    for key in ("model.width", "seed"):
        assert key in shown
    for constant in ("trainer.max_epochs", "optimizer.lr", "model.depth"):
        assert constant not in shown


def test_on_a_phone_the_page_fits_and_wide_figures_scroll_at_their_own_size(sweep, browser):
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get(f"file://{sweep}/report/index.html")
        assert browser.execute_script("return document.documentElement.scrollWidth") == 400
        sizes = browser.execute_script(
            "return [...document.querySelectorAll('.scroll svg')].map(e => "
            "[+e.getAttribute('width'), e.getBoundingClientRect().width])"
        )
        assert max(width for width, _ in sizes) > 400
        assert all(shown == pytest.approx(width, abs=1) for width, shown in sizes)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
