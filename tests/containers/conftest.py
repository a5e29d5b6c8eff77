"""`make test-containers`: the image is built and compose brought up once, for all tests of this folder."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import images as made
from .engine import Engine, UnavailableError, engine
from .images import Images
from .service import Service


@pytest.fixture(scope="session")
def containers() -> Iterator[Engine]:
    """An engine; what it was started with is gone at the end, but for images in a folder that the caller named."""
    kept = os.environ.get("PAIRFLOW_CONTAINERS_DIR")
    with tempfile.TemporaryDirectory(prefix="pairflow-containers-", dir="/var/tmp") as temporary:
        try:
            with engine(Path(kept or temporary).absolute()) as found:
                yield found
        except UnavailableError as reason:
            pytest.skip(str(reason))


@pytest.fixture(scope="session")
def images(containers: Engine) -> Images:
    try:
        return made.build(containers)
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def service(containers: Engine, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Everything up; in the end its containers, networks and volumes go."""
    service = Service(containers, images, tmp_path_factory.mktemp("compose"))
    try:
        print(f"up: {service.up():.0f} s until all is healthy")
        yield service
    finally:
        service.compose("down", "--volumes", check=False)
