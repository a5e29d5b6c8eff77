"""What holds for all tests: their marks, which of them share a worker, and the order within a story."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers side by side: the threads of one would wait for those of another. Read when torch is first imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_FOLDER = Path(__file__).parent
_SERVERS = {"ray_cluster": "flows", "prefect_url": "flows", "user": "service", "service_environment": "postgres"}
"""Fixture -> the group of the tests that need it: servers that start once a session start in one worker only."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups; pytest-randomly has shuffled by then
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        servers = [group for name, group in _SERVERS.items() if name in getattr(item, "fixturenames", ())]
        if servers:
            item.add_marker(pytest.mark.service)
        # Without servers, a file: fixtures of a module are made once then.
        group = servers[0] if servers else str(item.path.relative_to(_FOLDER))
        item.add_marker(pytest.mark.xdist_group(group))
    _in_order_of_their_story(items)
    # Workers take groups in this order: first the longest, whose waits the others fill.
    items.sort(key=lambda item: item.get_closest_marker("service") is None)


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
