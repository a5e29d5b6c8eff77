"""Somebody with an empty home and a browser, who has read the README."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..service.conftest import environment_of
from ..service.user import User
from . import browser

if TYPE_CHECKING:
    from playwright.sync_api import Page

_README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
_KEEP_VARIABLE = "PAIRFLOW_TEST_PICTURES"
"""A folder for the pictures of every page, else pytest's own."""


def of_readme(command: str) -> list[str]:
    """The words of a command as the README has it."""
    (line,) = re.findall(rf"^pairflow ({command})(?: +#.*)?$", _README, flags=re.MULTILINE)
    return shlex.split(line)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Somebody for whom the README's command started the service, in an empty home; it is ended at the end."""
    person = User(environment_of(tmp_path_factory.mktemp("newcomer")))
    try:
        up = person.run(*of_readme("up --detach"))
        assert up.returncode == 0, up.stderr
        yield person
        assert person.troubles() == []
    finally:
        down = person.run("down")
        assert down.returncode == 0, down.stderr


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get(_KEEP_VARIABLE)
    folder = tmp_path_factory.mktemp("pictures") if kept is None else Path(kept)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def page(newcomer: User) -> "Iterator[Page]":
    token = newcomer.run("token").stdout.strip()
    with browser.browser_page(newcomer.mlflow, token) as window:
        browser.sign_in(window, newcomer.prefect, token)
        yield window
