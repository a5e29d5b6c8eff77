"""Proxies and certificates of the environment, as the HTTP clients that this project uses understand them."""

import os
import urllib.request
from pathlib import Path

import pytest
import requests.utils

from flows.home.network import set_up_network

_PROXY = "http://127.0.0.1:9"


def _by_proxy(url: str) -> bool:
    """Whether urllib and requests, which have code of their own for this, would ask the proxy; they must agree."""
    host = url.partition("://")[2].partition("/")[0]
    by_urllib = not urllib.request.proxy_bypass_environment(host)
    assert by_urllib == bool(requests.utils.get_environ_proxies(url)), url
    return by_urllib


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    given = {"http_proxy": _PROXY, "https_proxy": _PROXY, "HTTP_PROXY": _PROXY}
    for name in (*os.environ,):
        if "proxy" in name.lower() or name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for name in ("no_proxy", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, "")  # so that what is set is taken back
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    return dict(os.environ)


def test_loopback_and_own_servers_are_asked_directly(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _by_proxy("http://127.0.0.1:4200/api")  # how it is without us
    for name, url in {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "RAY_ADDRESS": "http://head.pairflow.svc:8265",
        "AWS_ENDPOINT_URL": "http://store.lab.example:7070",
        "PREFECT_API_URL": "https://api.prefect.cloud/api",
    }.items():
        monkeypatch.setenv(name, url)
    set_up_network()
    set_up_network()
    direct = ("http://127.0.0.1:1/", "http://localhost:1/", "http://mlflow:5000/", "http://store.lab.example:7070/")
    for url in (*direct, "http://head.pairflow.svc:8265/x"):
        assert not _by_proxy(url), url
    for url in ("https://api.prefect.cloud/api", "http://example.org/data.zip", "https://ftp.example/x"):
        assert _by_proxy(url), url


def test_what_the_user_excepted_stays_so(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", ".example, 10.0.0.7")
    monkeypatch.setenv("no_proxy", "intern")
    set_up_network()
    for url in ("http://a.example/", "http://10.0.0.7/", "http://intern/", "http://127.0.0.1/"):
        assert not _by_proxy(url), url
    monkeypatch.setenv("no_proxy", "*")
    set_up_network()
    assert not _by_proxy("http://example.org/")


def test_a_companys_certificates_are_for_every_client(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "company.pem"
    set_up_network()
    assert "REQUESTS_CA_BUNDLE" not in os.environ
    bundle.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    set_up_network()
    assert os.environ["REQUESTS_CA_BUNDLE"] == str(bundle)
    session = requests.Session()
    assert session.merge_environment_settings("https://example.org", {}, None, None, None)["verify"] == str(bundle)
