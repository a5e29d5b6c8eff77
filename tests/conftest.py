"""What holds for all tests: their marks, which of them share a worker, and the order within a story."""

import functools
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers side by side: the threads of one would wait for those of another. Read when torch is first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Threads that spin while they wait take from the others what they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_FOLDER = Path(__file__).parent
_SERVERS = {
    "flows": (
        "ray_cluster",
        "prefect_url",
        "served_environment",
        "cli_environment",
        "cli",
        "new_cli",
        "pipeline_result",
        "history",
    ),
    "service": ("served", "user"),
}
"""Group -> fixtures of servers that start once a session: all files that use them go to one worker."""
_BY_OTHERS = {
    f"tests/service/test_{name}.py": "service of others"
    for name in ("homes", "service_kills", "service_schedules", "service_turns", "shutdown")
}
"""Files with a group of their own, and its servers: these wait for clocks, and would have all others wait too."""
_LAST = "service/test_shutdown.py"
"""It ends the servers of its group, which would be started again for a file that comes after it."""
_MARKS = {
    # Servers of their own, for one file. Those of a session are known by their fixtures.
    "service": (
        "flows/test_embedded.py",
        "flows/test_lineage_outage.py",
        "flows/test_logged_models.py",
        "flows/test_readme.py",  # a story, of which some parts would need none
        "journeys/test_three_uses.py",
        "service/test_postgres.py",
        "service/test_service_unwell.py",
        "storage/test_s3.py",
    ),
    "kill": (
        *("flows/test_embedded.py", "flows/test_killed.py", "flows/test_lineage_outage.py", "flows/test_parts.py"),
        *(
            "flows/test_replicas.py",
            "service/test_service_kills.py",
            "service/test_service_pipeline.py",
        ),
        *("service/test_service_unwell.py", "storage/test_crash.py"),
    ),
    "journey": (
        *("flows/test_pipeline.py", "flows/test_pipeline_s3.py", "flows/test_retrain.py", "flows/test_study.py"),
        *(
            "flows/test_retrain_first.py",
            "flows/test_readme.py",
            "journeys/test_three_uses.py",
            "service/test_service_schedules.py",
        ),
        *("service/test_postgres.py", "service/test_service_pipeline.py", "service/test_service_retrain.py"),
    ),
}


@functools.cache
def _group(path: str) -> str:
    """Of a file's tests: that of its servers, or else the file itself, whose fixtures are then made once."""
    text = (_FOLDER.parent / path).read_text(encoding="utf-8")
    for group, fixtures in _SERVERS.items():
        if re.search(rf"\b({'|'.join(fixtures)}): ", text):  # as the arguments of tests and fixtures are written
            return _BY_OTHERS.get(path, group)
    return path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Groups instead of single tests. (xdist's own groups hang on names of tests that pytest 9.2 no longer changes.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid.partition("::")[0])

    config.option.loadscopereorder = False  # the order is that of the collection
    return Groups(config, log)


@pytest.hookimpl(tryfirst=True)  # pytest-randomly has shuffled by then
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    turns: dict[pytest.Item, tuple[int, bool]] = {}
    groups = [*_SERVERS, *dict.fromkeys(_BY_OTHERS.values())]
    for item in items:
        path = item.path.relative_to(_FOLDER).as_posix()
        group = _group(f"tests/{path}")
        needed = {name for name, fixtures in _SERVERS.items() if {*fixtures} & {*getattr(item, "fixturenames", ())}}
        if not needed <= {group.partition(" ")[0]}:
            raise pytest.UsageError(f"{item.nodeid} needs the servers of {needed}, but its file is in group {group!r}")
        for mark in {mark for mark, paths in _MARKS.items() if path in paths} | ({"service"} if needed else set()):
            item.add_marker(mark)
        # Workers take groups in this order: first what takes longest, and mostly waits; files fill the waits.
        alone = len(groups) + (item.get_closest_marker("service") is None)
        turns[item] = groups.index(group) if group in groups else alone, path == _LAST
    _in_order_of_their_story(items)
    items.sort(key=turns.__getitem__)


def pytest_configure() -> None:
    for path in {path for paths in _MARKS.values() for path in paths} | {
        each.removeprefix("tests/") for each in _BY_OTHERS
    }:
        if not (_FOLDER / path).is_file():
            raise pytest.UsageError(f"tests/conftest.py gives marks to tests/{path}, which is not there")


_first_failures: dict[Path, str] = {}
"""File of a story -> its first test that failed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What fails in a story after something else has failed says so: it may only be what followed."""
    report = yield
    if report.failed and item.get_closest_marker("story"):
        first = _first_failures.setdefault(item.path, item.name)
        if first != item.name:
            note = f"{first} failed before it in this story"
            report.sections.append(("its story", note))
            if crash := getattr(report.longrepr, "reprcrash", None):  # the line in the summary
                crash.message = f"({note}) {crash.message}"
    return report


def _place(item: pytest.Item) -> tuple[int, list[int]]:
    """Where a test stands in its file: its line, and its number where it is one of several."""
    call = getattr(item, "callspec", None)
    return item.reportinfo()[1] or 0, [] if call is None else [*call.indices.values()]


def _in_order_of_their_story(items: list[pytest.Item]) -> None:
    """Puts the tests of each file marked `story` back in the order in which they stand there."""
    places: dict[Path, list[int]] = {}
    for place, item in enumerate(items):
        if item.get_closest_marker("story"):
            places.setdefault(item.path, []).append(place)
    for of_one_file in places.values():
        told = sorted((items[place] for place in of_one_file), key=_place)
        for place, item in zip(of_one_file, told, strict=True):
            items[place] = item
