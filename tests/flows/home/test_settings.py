"""Settings, read from the environment, and the environment that is made of them."""

from pathlib import Path

import pytest

from flows.home.environment import job_environment, prepare_environment
from flows.home.settings import Settings
from pairflow.errors import SpecError


def test_paths_are_absolute_and_addresses_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAIRFLOW_HOME", "here")
    monkeypatch.setenv("PAIRFLOW_STORE", "s3://bucket/pairs")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = Settings.read()
    assert settings.home == tmp_path / "here"
    assert settings.store == "s3://bucket/pairs"
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/here/mlflow/mlflow.db"
    assert job_environment(settings)["PAIRFLOW_STORE"] == "s3://bucket/pairs"


def test_jobs_of_other_machines_have_the_home_of_theirs(tmp_path: Path) -> None:
    def handed(store: str, ray: str | None) -> str | None:
        return job_environment(Settings(home=tmp_path, store_url=store, ray_address=ray)).get("PAIRFLOW_HOME")

    assert handed("s3://bucket/pairs", "http://ray-head:8265") is None
    # Where they share a disk, as on one machine or over NFS, they share the home.
    assert handed("/nfs/pairs", "http://ray-head:8265") == str(tmp_path)
    assert handed("s3://bucket/pairs", "http://127.0.0.1:8265") == str(tmp_path)
    assert handed("s3://bucket/pairs", None) == str(tmp_path)


def test_pages_are_where_a_browser_finds_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.environ", {"PAIRFLOW_HOME": str(tmp_path)})
    assert (Settings.read().mlflow_pages, Settings.read().ray_pages) == (None, None)
    within = {"MLFLOW_TRACKING_URI": "http://mlflow:5000/", "RAY_ADDRESS": "http://ray:8265"}
    monkeypatch.setattr("os.environ", {"PAIRFLOW_HOME": str(tmp_path), **within})
    assert (Settings.read().mlflow_pages, Settings.read().ray_pages) == ("http://mlflow:5000", "http://ray:8265")
    outside = {"PAIRFLOW_MLFLOW_UI_URL": "https://a.example/ml/", "PAIRFLOW_RAY_UI_URL": "https://a.example/ray"}
    monkeypatch.setattr("os.environ", {"PAIRFLOW_HOME": str(tmp_path), **within, **outside})
    settings = Settings.read()
    assert settings.mlflow_pages == "https://a.example/ml"
    assert settings.ray_pages == "https://a.example/ray"
    assert job_environment(settings)["PAIRFLOW_MLFLOW_UI_URL"] == "https://a.example/ml/"
    assert job_environment(settings)["MLFLOW_TRACKING_URI"] == "http://mlflow:5000/"
    monkeypatch.setattr("os.environ", {"PAIRFLOW_MLFLOW_UI_URL": "javascript:alert(1)"})
    with pytest.raises(SpecError, match="PAIRFLOW_MLFLOW_UI_URL"):
        Settings.read()


def test_environment_of_the_user_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = {"PREFECT_HOME": "/mine", "PREFECT_API_URL": "http://server/api"}
    monkeypatch.setattr("os.environ", environment)
    prepare_environment(Settings(home=tmp_path))
    assert environment["PREFECT_HOME"] == "/mine"
    assert environment["PREFECT_API_URL"] == "http://server/api"
    assert environment["DO_NOT_TRACK"] == "true"


@pytest.mark.parametrize(
    ("cores", "at_once"),
    [
        (1, [1, 1, 1, 1]),
        (2, [1, 2, 3, 2, 2]),
        (3, [1, 2, 3, 4, 3]),
        (4, [1, 2, 3, 4, 5, 6, 4]),
        (64, [1, 2, 3, 4, 5, 6, 4]),
    ],
)
def test_as_many_trainings_at_once_as_keep_the_cores_at_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, at_once: list[int]
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    settings = Settings(home=tmp_path)
    assert [min(number, settings.trainings_at_once(number)) for number in range(1, len(at_once) + 1)] == at_once
    assert Settings(home=tmp_path, jobs_at_once=2).trainings_at_once(3) == 2
