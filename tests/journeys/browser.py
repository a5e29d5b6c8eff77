"""A browser, and what people click in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *(
        "--disable-component-update",
        "--disable-sync",
        "--force-prefers-reduced-motion",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ),
)
_PATIENCE_MS = 120_000
WITHOUT = "no Chromium on this machine (Debian's package: chromium)" if CHROMIUM is None else None
"""Why there is no browser to walk with, where there is none."""


@contextmanager
def browser_page(mlflow: str, token: str) -> "Iterator[Page]":
    """A window of a profile that was never used, which reaches this machine alone; it answers MLflow's dialog."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_OPTIONS))
        page = browser.new_page(
            viewport={"width": 1400, "height": 1600},
            http_credentials={"username": "pairflow", "password": token, "origin": mlflow},
        )
        page.set_default_timeout(_PATIENCE_MS)
        yield page
        browser.close()


def sign_in(page: "Page", prefect: str, token: str) -> None:
    """Types into Prefect's dialog what `pairflow token` prints; it asks once."""
    page.goto(prefect)
    page.locator("input[type=password]").fill(f"pairflow:{token}")
    page.get_by_role("button", name="Login").click()
    page.wait_for_url(f"{prefect}/dashboard*")


def wait_elsewhere(page: "Page") -> None:
    """Leaves for an empty page: one that shows a run at work is drawn without end, and takes a core from that run."""
    page.goto("about:blank")


def photograph(page: "Page", folder: Path, name: str) -> None:
    """Keeps what is to be seen, once the page has come to rest."""
    page.wait_for_timeout(1500)
    page.screenshot(path=folder / f"{name}.png")


class Form:
    """The form of a deployment in Prefect's UI; its labels and inputs are not tied together."""

    def __init__(self, page: "Page", deployment: str) -> None:
        self._page = page
        page.goto(f"{deployment}/run")

    def fill(self, label: str, value: str) -> None:
        """Types into a field."""
        self._nearest(label, ".//input or .//textarea").locator("input, textarea").first.fill(value)

    def add(self, label: str, value: str) -> None:
        """Adds a line to a list."""
        items = self._nearest(label, ".//button[contains(., 'Add item')]")
        before = items.locator("textarea").count()
        items.get_by_role("button", name="Add item").click()
        items.locator("textarea").nth(before).fill(value)

    def submit(self) -> None:
        self._page.get_by_role("button", name="Submit").click()

    def run(self) -> str:
        """The id of the run that a submission made, when its page is there."""
        self._page.wait_for_url("**tab=Runs**")  # the deployment's page, which lists the run
        self._page.locator("a[href*='/runs/flow-run/']").first.click()
        self._page.wait_for_url("**/runs/flow-run/**")
        return self._page.url.split("/flow-run/")[1].split("?")[0]

    def _nearest(self, label: str, having: str) -> "Locator":
        """The innermost part of the form around a field's label that has something, by an XPath."""
        header = self._page.locator(f'.schema-form-property__label:text-is("{label} (Optional)")').first
        header.wait_for()
        return header.locator(f"xpath=ancestor::*[{having}][1]")
