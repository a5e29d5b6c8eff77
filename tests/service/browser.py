"""A browser, and what people click in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"),
)
_PATIENCE_MS = 120_000
WITHOUT = "no Chromium on this machine (Debian's package: chromium)" if CHROMIUM is None else None
"""Why there is no browser to walk with, where there is none."""


@contextmanager
def browser_page() -> "Iterator[Page]":
    """A window of a profile that was never used, which reaches this machine alone."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_OPTIONS))
        page = browser.new_page(viewport={"width": 1400, "height": 1600})
        page.set_default_timeout(_PATIENCE_MS)
        yield page
        browser.close()


def photograph(page: "Page", folder: Path, name: str) -> None:
    """Keeps what is to be seen, once the page has come to rest."""
    page.wait_for_timeout(1500)
    page.screenshot(path=folder / f"{name}.png")


def fill(page: "Page", label: str, value: str) -> None:
    """Types into the field of a form of Prefect's; its labels and inputs are not tied together."""
    header = page.locator(f'.schema-form-property__label:text-is("{label} (Optional)")').first
    header.wait_for()
    box: Any = header.locator("xpath=ancestor::*[.//input or .//textarea][1]").locator("input, textarea").first
    box.fill(value)


def trigger(page: "Page", deployment: str, folder: Path) -> str:
    """Starts a deployment by its form with 60 rows; the flow run's id."""
    page.goto(f"{deployment}/run")
    fill(page, "Max Rows", "60")
    photograph(page, folder, "1-form")
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url("**tab=Runs**")  # the deployment's page, which lists the run
    page.locator("a[href*='/runs/flow-run/']").first.click()
    page.wait_for_url("**/runs/flow-run/**")
    return page.url.split("/flow-run/")[1].split("?")[0]
