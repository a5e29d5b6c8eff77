"""The token that lets this home's processes, and nobody else, into a Ray cluster on this machine."""

import os
import secrets
from pathlib import Path

from flows.home.private import private_folder

SIGN_IN = "`pairflow token` prints what its page asks for"
"""Said beside every link to Ray's pages."""


def token_headers(token_path: Path) -> dict[str, str]:
    """HTTP headers with which a cluster lets in whoever can read its token."""
    return {"Authorization": f"Bearer {token_path.read_text(encoding='ascii').strip()}"}


def cluster_environment(token_path: Path) -> dict[str, str]:
    """What servers, workers and clients of a local cluster need in their environment."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        # Despite its name this is what keeps every listener of a one-machine cluster on 127.0.0.1.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        "RAY_COLOR_PREFIX": "0",
    }


def access_token(home: Path) -> Path:
    """The file with this home's Ray token, made with mode 0600 if there is none."""
    path = home / "ray" / "token"
    if path.is_file():
        return path
    draft = private_folder(path.parent) / f".{path.name}.{os.getpid()}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    try:
        os.link(draft, path)  # whole or not at all, and the first one stays
    except FileExistsError:
        pass
    except OSError:  # a filesystem without hard links
        os.replace(draft, path)
    draft.unlink(missing_ok=True)
    return path
