"""What servers that others started must be told once: `python -m flows.service.setup` on a cluster.

The store's bucket is made if there is none; Prefect is told of work pool, deployments and automation. Doing it again
changes nothing. `pairflow up` does the same for the servers that it starts.
"""

import sys

import fsspec

from flows.home.network import set_up_network
from flows.home.settings import Settings
from pairflow.errors import PairFlowError, StoreError


def make_store(url: str) -> None:
    """Makes the store's folder or bucket if there is none.

    Raises:
        StoreError: it cannot be reached or made.
    """
    try:
        files, path = fsspec.url_to_fs(url)
        files.makedirs(path, exist_ok=True)
    except (OSError, ValueError, ImportError) as error:
        raise StoreError(
            f"the store {url} cannot be reached or made: {error}; correct PAIRFLOW_STORE, or the keys of its server in "
            "the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL)"
        ) from None


def main() -> None:
    """Sets up the servers that the environment names; an error of ours is one message and exit code 1."""
    set_up_network()
    try:
        settings = Settings.read()
        make_store(settings.store)
        print(f"the store is {settings.store}", flush=True)
        from flows.service.registration import register

        print(f"registered {', '.join(register(settings))}", flush=True)
    except PairFlowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
