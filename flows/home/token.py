"""The token that lets this home's owner and processes, and nobody else, into its Ray, Prefect and MLflow."""

import base64
import contextlib
import os
import secrets
from pathlib import Path

from flows.home.private import private_folder
from pairflow.errors import SpecError

SIGN_IN = "`pairflow token` prints what its page asks for"
"""Said beside every link to Ray's pages."""
USER = "pairflow"
"""Whom the token belongs to, where a dialog asks for a name as well."""
_SHORTEST = 32  # characters; ours has 64


def read_token(token_path: Path) -> str:
    """The token itself.

    Raises:
        SpecError: the file is damaged, or cannot be read.
    """
    try:
        token = token_path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise SpecError(f"the token in {token_path} cannot be read: {error}; it is its owner's alone") from None
    if len(token) < _SHORTEST or not token.isalnum():
        raise SpecError(
            f"{token_path} holds no token ({len(token)} characters, expected {_SHORTEST} or more letters and digits); "
            "remove it, and run `pairflow down` and `pairflow up`"
        )
    return token


def token_headers(token_path: Path) -> dict[str, str]:
    """HTTP headers with which a cluster lets in whoever can read its token."""
    return {"Authorization": f"Bearer {read_token(token_path)}"}


def password_headers(token_path: Path) -> dict[str, str]:
    """HTTP headers with which Prefect and MLflow do."""
    return {"Authorization": f"Basic {base64.b64encode(prefect_password(token_path).encode()).decode()}"}


def prefect_password(token_path: Path) -> str:
    """What Prefect's page asks for, and calls an auth string: user and password in one."""
    return f"{USER}:{read_token(token_path)}"


def prefect_credential(token_path: Path) -> dict[str, str]:
    """What Prefect's clients need in their environment."""
    return {"PREFECT_API_AUTH_STRING": prefect_password(token_path)}


def mlflow_credential(token_path: Path) -> dict[str, str]:
    """What MLflow's clients need in their environment."""
    return {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": read_token(token_path)}


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
    """The file with this home's token, made with mode 0600 if there is none."""
    path = home / "ray" / "token"
    if path.is_file():
        if path.stat().st_mode & 0o077:  # as after a copy
            with contextlib.suppress(PermissionError):  # whose it is, and who may read it, is that one's affair
                path.chmod(0o600)
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
