"""Machines unlike ours: no home, closed folders, long names, slow starts."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flows.cluster.local import LocalCluster
from flows.home import temporary
from pairflow.errors import SpecError
from pairflow.paths import default_home

_COMPILES = """
import numpy as np, sys
from pairflow.coupling import couple
from pairflow.spec import CouplingSpec
np.save(sys.argv[1], couple(np.arange(12).reshape(4, 3) % 4, vocab_size=4, spec=CouplingSpec(num_steps=2)))
"""
_SLOW_ONCE = """
import os, sys
if "ray.scripts.scripts" in sys.orig_argv:
    try:
        os.close(os.open({marker!r}, os.O_CREAT | os.O_EXCL))
        print("Exception: The current node timed out during startup.", flush=True)
        os._exit(1)
    except FileExistsError:
        pass
"""


@pytest.mark.parametrize("name", ["short", "scratch-of-job-1234567-of-somebody", "Zoë"])
def test_rays_folder_is_short_and_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    folder = temporary.ray_folder()
    try:
        assert str(folder).isascii()
        assert len(f"{folder}/session_2026-11-26_10-31-47_123456_4194304/sockets/plasma_store") <= 103
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        folder.rmdir()


def test_no_place_for_rays_folder_names_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("a" * 90)))
    monkeypatch.setattr(temporary, "_SHORT", (str(tmp_path / "none"),))
    with pytest.raises(SpecError, match="TMPDIR"):
        temporary.ray_folder()


def test_a_user_without_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("uid")))
    with pytest.raises(SpecError, match="set PAIRFLOW_HOME"):
        default_home()


@pytest.mark.slow
def test_compiled_code_is_kept_where_neither_source_nor_home_can_be_written(tmp_path: Path) -> None:
    """numba's own two places are refused as it refuses them: its locators find no folder."""
    sealed = "import numba.core.caching as c\nfor k in (c.InTreeCacheLocator, c.UserWideCacheLocator):\n"
    sealed += "    k.ensure_cache_path = lambda self: (_ for _ in ()).throw(OSError(30, 'read-only'))\n"
    results = []
    for number, code in enumerate((sealed + _COMPILES, _COMPILES)):
        out = tmp_path / f"{number}.npy"
        done = subprocess.run(
            [sys.executable, "-c", code, str(out)],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        results.append(np.load(out))
    np.testing.assert_array_equal(*results)
    kept = tmp_path / f"pairflow-numba-{os.getuid()}"
    assert list(kept.rglob("*.nbi"))
    assert kept.stat().st_mode & 0o777 == 0o700


def test_a_ray_that_was_too_slow_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(_SLOW_ONCE.format(marker=str(tmp_path / "marker")))
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)
    with LocalCluster(tmp_path / "home", object_store_mb=80, num_cpus=1) as cluster:
        cluster.wait()
    assert (tmp_path / "marker").exists()
