"""deploy/slim.py: what it takes out of an image's environment, and that what it leaves can be loaded as before."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

_SCRIPT = Path(__file__).parents[2] / "deploy" / "slim.py"


@pytest.fixture(scope="module")
def slim() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy_slim", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def environment(slim: ModuleType, tmp_path: Path) -> Path:
    """One in which every rule finds a folder or file, and everything has a neighbour that stays."""
    packages = tmp_path / "venv/lib/python3.11/site-packages"
    found = [pattern.replace("**/", "numpy/") for patterns in slim.RULES.values() for pattern in patterns]
    for name in [*found, "botocore/data/ec2", "botocore/data/s3"]:
        folder = packages / name.replace("*", "x")
        folder.mkdir(parents=True)
        (folder / "inside").write_bytes(b"x" * 1000)
        (folder.parent / "stays").write_bytes(b"x" * 1000)
    return packages.parents[2]


def _run(environment: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, _SCRIPT, environment], capture_output=True, text=True, timeout=60, check=False
    )


def test_what_the_rules_find_goes_and_nothing_beside_it(environment: Path) -> None:
    (packages,) = environment.glob("lib/*/site-packages")
    stays = set(packages.rglob("stays"))
    done = _run(environment)
    assert done.returncode == 0, done.stderr
    assert {each for each in packages.rglob("*") if each.is_file()} == stays | {packages / "botocore/data/s3/inside"}


def test_a_rule_that_finds_nothing_is_an_error(environment: Path) -> None:
    shutil.rmtree(environment / "lib/python3.11/site-packages/ray")
    done = _run(environment)
    assert done.returncode == 1
    assert "Ray for Java" in done.stderr


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library with symbols: an extension module of numcodecs."""
    spec = importlib.util.find_spec("numcodecs.blosc")
    assert spec is not None
    assert spec.origin is not None
    return Path(shutil.copy(spec.origin, tmp_path / Path(spec.origin).name))


def test_a_stripped_library_is_smaller_and_works(slim: ModuleType, library: Path) -> None:
    if shutil.which("strip") is None:
        pytest.skip("no strip: apt-get install binutils")
    before, size = slim.loaded(library), library.stat().st_size
    assert slim.strip(library) > size // 2
    assert slim.loaded(library) == before
    assert slim.strip(library) == 0
    code = f"import numcodecs, importlib.machinery as m; b = m.ExtensionFileLoader('numcodecs.blosc', {str(library)!r})"
    code += "; import importlib.util as u; s = u.spec_from_loader('numcodecs.blosc', b); x = u.module_from_spec(s)"
    code += "; b.exec_module(x); print(bytes(x.decompress(x.compress(b'pairs' * 9, b'lz4', 5))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == repr(b"pairs" * 9), done.stderr


def test_what_is_loaded_is_seen_to_the_byte(slim: ModuleType, library: Path) -> None:
    before, data = slim.loaded(library), bytearray(library.read_bytes())
    data[4096] ^= 1
    library.write_bytes(data)
    assert slim.loaded(library) not in (before, None)
    library.write_text("no library")
    assert slim.loaded(library) is None
