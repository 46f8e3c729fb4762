"""A real Chromium that looks at the console as a person does: headless, and on loopback only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests import conftest
from tests.serving import Server, eventually

CONSOLE_PATH = "/console"
WIDTH, HEIGHT = 1280, 1600

ARGUMENTS = (
    *("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-quic", f"--window-size={WIDTH},{HEIGHT}"),
    # Whatever it would like to tell its maker: there is no other host.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

# Keeps each state that was shown, also one that nobody looked at in time.
RECORD = """
window.states = [];
new MutationObserver(() => window.states.push(document.getElementById('state').textContent))
  .observe(document.getElementById('state'), {childList: true, characterData: true, subtree: true});
"""
ROWS = """
return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].map(
  (row) => [...row.cells].map((cell) => cell.textContent));
"""


class Window:
    """One window, and what a person sees in it and does to it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, server: Server) -> None:
        """Load the console of a server; nothing is left of what was there before."""
        self._log()  # what stood there was about another page
        self.driver.get(server.url + CONSOLE_PATH)
        self.run(RECORD)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page and return its value."""
        return self.driver.execute_script(script, *arguments)

    def find(self, name: str) -> WebElement:
        """Find an element by its id."""
        return self.driver.find_element(By.ID, name)

    def fill(self, name: str, text: str) -> None:
        """Type into a field."""
        field = self.find(name)
        field.clear()
        field.send_keys(text)

    def click(self, selector: str) -> None:
        """Click what a selector finds."""
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def follow(self, token: str, **fields: str) -> None:
        """Type a token and whatever else, and follow; `_` stands for `-` in the names of fields."""
        self.run("document.getElementById('as-client').open = true")
        self.fill("token", token)
        for name, text in fields.items():
            self.fill(name.replace("_", "-"), text)
        self.click("#follow .first")

    def choose(self, name: str, option: str) -> None:
        """Choose of a list."""
        self.find(name).find_element(By.XPATH, f"option[.='{option}']").click()

    def text(self, name: str) -> str:
        """Return what an element says, also beyond the edge of the window."""
        return str(self.run("return document.getElementById(arguments[0]).textContent", name))

    def rows(self, table: str = "live") -> list[list[str]]:
        """Return the cells of each row of a table, from top to bottom."""
        found: list[list[str]] = self.run(ROWS, table)
        return found

    def paths(self, table: str = "live") -> list[str]:
        """Return the column From, from top to bottom."""
        return [cells[2] for cells in self.rows(table)]

    def states(self) -> list[str]:
        """Return the first word of each state so far."""
        return [str(text).split()[0].rstrip(":.") for text in self.run("return window.states")]

    def until(self, look: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
        """Wait until it is so."""
        with contextlib.suppress(AssertionError):
            eventually(look, seconds)
            return
        raise AssertionError(f"not {what}; states {self.states()}; {self.text('problem')}")

    def until_text(self, name: str, text: str) -> None:
        """Wait until an element says exactly that."""
        self.until(lambda: self.text(name) == text, f"{text!r} in {name}")

    def until_rows(self, count: int, table: str = "live") -> None:
        """Wait until a table has so many rows."""
        self.until(lambda: len(self.rows(table)) == count, f"{count} rows in {table}")

    def until_state(self, *words: str) -> None:
        """Wait until the last state begins with one of these words."""
        self.until(lambda: self.states() and self.states()[-1] in words, f"in state {words}")

    def complaints(self) -> list[str]:
        """Return what the browser had to say against the page since it was opened."""
        return [each["message"] for each in self._log() if each["level"] in {"WARNING", "SEVERE"}]

    def _log(self) -> list[dict[str, Any]]:
        """Take what the browser has logged since this was asked before."""
        logged: list[dict[str, Any]]
        logged = self.driver.get_log("browser")  # type: ignore[no-untyped-call] # selenium
        return logged

    def show(self, width: int, height: int = HEIGHT, *, scheme: str = "light") -> None:
        """Make the window as wide as told, light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", features=[feature])

    def command(self, name: str, **arguments: Any) -> None:
        """Give a command of the DevTools protocol."""
        self.driver.execute_cdp_cmd(name, arguments)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Window]:
    """Open a window of a browser that has never been used, and close it at the end."""
    options = Options()
    options.binary_location = conftest.toolchain("chromium")
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    for argument in (*ARGUMENTS, *sandbox, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Told where the driver is, Selenium looks for none elsewhere.
    service = Service(conftest.toolchain("chromedriver"))
    with webdriver.Chrome(options, service) as driver:
        yield Window(driver)
