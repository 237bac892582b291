"""A real browser over real reports: Debian's Chromium, driven by Selenium; skipped where either is missing."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.config import compose
from pipelines.run import Watcher, run

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900"),
)
DARK = "--blink-settings=preferredColorScheme=0"


@pytest.fixture(scope="session")
def start_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., "Chrome"]]:
    """Starts browsers with further flags; they are closed at the end."""
    pytest.importorskip("selenium", reason="needs selenium: pip install 'wrongturn[browser]'")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    started: list[Any] = []

    def start(*flags: str) -> Chrome:
        options = ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, *flags, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        started.append(Chrome(options=options, service=Service(driver)))
        return started[-1]

    yield start
    for browser in started:
        browser.quit()


@pytest.fixture(scope="session")
def browser(start_browser: Callable[..., "Chrome"]) -> "Chrome":
    """One browser for tests that load their page themselves."""
    return start_browser()


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run over 200 problems of the simulated world."""
    out = tmp_path_factory.mktemp("simulated") / "out"
    prices = "budget.prices=[{prompt:0.5,completion:2.0}]"
    problems = ["problems=simulated", "problems.num_problems=200"]
    run(compose(["engine=simulated", *problems, "actor=plain", "panel=blind", prices, f"out={out}"]), Watcher())
    return out
