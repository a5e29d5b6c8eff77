"""Paths and URLs at the door: absolute for every process, or refused with the reason."""

import os
import sqlite3
from pathlib import Path

import pytest

import storage
from flows.home.environment import job_environment
from flows.home.places import absolute_path, absolute_tracking_uri, absolute_url, sqlite_path
from flows.home.settings import Settings
from pairflow.errors import SpecError, StoreError
from pairflow.paths import user_path

_LONG = "a" * 300


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["store", "./a b/ü", "50%", "a?b#c", "it's", '"x"', "two\nlines", "::", "s3:/x"])
def test_any_characters_of_a_plain_path_are_kept(tmp_path: Path, name: str) -> None:
    assert absolute_url(name) == os.path.join(tmp_path, Path(name))
    folder = storage.open_folder(absolute_url(name))
    folder.write("x", b"1")
    assert Path(name, "x").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///a/b", "/a/b"),
        ("file:/a/b", "/a/b"),
        ("file://localhost/a", "/a"),
        ("local:///a", "/a"),
        ("file:///a%20b%3F%C3%BC", "/a b?ü"),
    ],
)
def test_file_urls_are_paths(url: str, path: str) -> None:
    assert absolute_url(url) == path
    assert storage.open_folder(url).url == path


@pytest.mark.parametrize("url", ["s3://bucket/a b", "gs://x/y", "simplecache::s3://b/x", "https://h/x"])
def test_other_urls_are_kept(url: str) -> None:
    assert absolute_url(url) == url


@pytest.mark.parametrize("url", ["file://store", "file:store", "local://x", "local:x", "file://host/x", "memory://x"])
def test_urls_that_mean_something_else_elsewhere(url: str) -> None:
    with pytest.raises(SpecError, match="PAIRFLOW_STORE"):
        absolute_url(url, "PAIRFLOW_STORE")
    if not url.startswith("memory"):
        with pytest.raises(StoreError, match="relative"):
            storage.open_folder(url)


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "sqlite:///a b/50%.db?timeout=5", "sqlite+pysqlite:///x.db"])
def test_mlflow_database_is_found_from_everywhere(tmp_path: Path, uri: str) -> None:
    found = sqlite_path(absolute_tracking_uri(uri))
    assert found is not None
    assert found.is_relative_to(tmp_path)
    found.parent.mkdir(exist_ok=True)
    sqlite3.connect(found).close()


@pytest.mark.parametrize("uri", ["http://h:5000", "postgresql://u@h/db", "databricks", "databricks://profile"])
def test_other_histories_are_kept(uri: str) -> None:
    assert absolute_tracking_uri(uri) == uri


@pytest.mark.parametrize(
    "uri", ["sqlite://", "sqlite:///:memory:", "sqlite://x.db", "mlruns", "./mlruns", "file:///m", "file:m", "sqlite:x"]
)
def test_histories_that_would_be_lost(uri: str) -> None:
    with pytest.raises(SpecError, match="MLFLOW_TRACKING_URI"):
        absolute_tracking_uri(uri)


def test_settings_hand_on_nothing_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "PAIRFLOW_HOME": "h",
        "PAIRFLOW_STORE": "s",
        "PAIRFLOW_DATA_DIR": "d",
        "MLFLOW_TRACKING_URI": "sqlite:///m",
    }
    monkeypatch.setattr("os.environ", given)
    handed = job_environment(Settings.read())
    assert {name: handed[name] for name in given} == {
        "PAIRFLOW_HOME": f"{tmp_path}/h",
        "PAIRFLOW_STORE": f"{tmp_path}/s",
        "PAIRFLOW_DATA_DIR": f"{tmp_path}/d",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m",
    }


def test_a_home_is_the_folder_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to("home")
    (tmp_path / "of links").symlink_to("link")
    for name in ("home", "link", "of links", "home/../link/", f"{tmp_path}//home"):
        monkeypatch.setenv("PAIRFLOW_HOME", name)
        assert Settings.read().home == tmp_path / "home"


def test_homes_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for name in ("a", "a/x", "~nobodyhere/h", _LONG, "what?", "two\nlines"):
        monkeypatch.setenv("PAIRFLOW_HOME", name)
        with pytest.raises(SpecError, match="PAIRFLOW_HOME"):
            Settings.read()


@pytest.mark.parametrize("text", ["~nobodyhere/x", _LONG, f"{_LONG}/y", "a\0b", "\ud800", "~\0", "~\ud800"])
def test_paths_that_python_refuses(text: str) -> None:
    for door in (user_path, absolute_path, absolute_url):
        with pytest.raises(SpecError) as refusal:
            door(text)
        assert "\n" not in str(refusal.value)


def test_a_working_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SpecError, match="working folder"):
        absolute_url("x")
    assert absolute_url("/x") == "/x"
