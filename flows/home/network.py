"""Proxies are for the world outside: this machine's loopback and the service's own servers are never asked of one."""

import os
from urllib.parse import urlsplit

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SERVERS = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def set_up_network() -> None:
    """Sets this process, and those that it starts, up for the network that the environment describes.

    Servers that are spoken to in plain http are the service's own. One at https://… may be a hosted one beyond the
    proxy: for it the user's NO_PROXY has the say. Downloads go by the proxy. A company's certificates are named by one
    variable for urllib, httpx and Prefect, and by another for requests, which MLflow and downloads use: who sets one
    means both.
    """
    lists = [os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    known = [each.strip() for text in lists for each in text.split(",")]
    urls = [urlsplit(os.environ.get(name, "")) for name in _SERVERS]
    own = [each.hostname for each in urls if each.scheme == "http" and each.hostname]
    together = ",".join(dict.fromkeys(each for each in (*known, *_LOOPBACK, *own) if each))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "*" if "*" in known else together
    bundle = next((os.environ[name] for name in _CERTIFICATES if os.environ.get(name)), None)
    if bundle is not None and os.path.isfile(bundle):
        for name in _CERTIFICATES[:2]:
            os.environ.setdefault(name, bundle)
