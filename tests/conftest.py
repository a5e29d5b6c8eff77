"""What holds for all tests: their marks, which of them share a worker, and the order within a story."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers side by side: the threads of one would wait for those of another. Read when torch is first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Threads that spin while they wait take from the others what they wait for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_FOLDER = Path(__file__).parent
_SERVERS = {"ray_cluster": "flows", "prefect_url": "flows", "user": "service", "service_environment": "postgres"}
"""Fixture -> the group of the tests that need it: servers that start once a session start in one worker only."""
_MARKS = {
    # Servers of their own, for one file. Those of a session are known by their fixtures.
    "service": (
        "flows/test_embedded.py",
        "flows/test_lineage_outage.py",
        "flows/test_logged_models.py",
        "service/test_service_unwell.py",
        "storage/test_s3.py",
    ),
    "kill": (
        *("flows/test_embedded.py", "flows/test_killed.py", "flows/test_lineage_outage.py", "flows/test_parts.py"),
        *("flows/test_replicas.py", "service/test_service_kills.py", "service/test_service_pipeline.py"),
        *("service/test_service_unwell.py", "storage/test_crash.py"),
    ),
    "journey": (
        *("flows/test_pipeline.py", "flows/test_pipeline_s3.py", "flows/test_retrain.py", "flows/test_study.py"),
        *("flows/test_retrain_first.py", "service/test_service_schedules.py"),
        *("service/test_postgres.py", "service/test_service_pipeline.py", "service/test_service_retrain.py"),
    ),
}
_FIRST = ("service", "flows", "postgres")
"""Groups in the order in which workers take them: first what takes longest, and mostly waits; files fill the waits."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups; pytest-randomly has shuffled by then
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    turns: dict[pytest.Item, int] = {}
    for item in items:
        path = item.path.relative_to(_FOLDER).as_posix()
        servers = [group for name, group in _SERVERS.items() if name in getattr(item, "fixturenames", ())]
        marks = {mark for mark, paths in _MARKS.items() if path in paths} | ({"service"} if servers else set())
        for mark in marks:
            item.add_marker(mark)
        # Without servers, a file is a group: fixtures of a module are made once then.
        group = servers[0] if servers else path
        item.add_marker(pytest.mark.xdist_group(group))
        turns[item] = _FIRST.index(group) if servers else len(_FIRST) + ("service" not in marks)
    _in_order_of_their_story(items)
    items.sort(key=turns.__getitem__)


def pytest_configure() -> None:
    for path in {path for paths in _MARKS.values() for path in paths}:
        if not (_FOLDER / path).is_file():
            raise pytest.UsageError(f"tests/conftest.py gives marks to tests/{path}, which is not there")


def _in_order_of_their_story(items: list[pytest.Item]) -> None:
    """Puts the tests of each file marked `story` back in the order in which they stand there."""
    places: dict[Path, list[int]] = {}
    for place, item in enumerate(items):
        if item.get_closest_marker("story"):
            places.setdefault(item.path, []).append(place)
    for of_one_file in places.values():
        told = sorted((items[place] for place in of_one_file), key=lambda item: item.reportinfo()[1] or 0)
        for place, item in zip(of_one_file, told, strict=True):
            items[place] = item
