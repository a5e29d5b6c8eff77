"""Prefect's server for one command, where no other is named; run as a program it holds that server.

Prefect would start the same by itself, but in the command's process group, where a signal to the group ends it before
the run could say how it ended, and with the patience of an idle machine.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.cluster.local import free_ports
from flows.home.held import hold, let_go, start_holder
from flows.home.settings import Settings
from flows.home.token import access_token, prefect_credential, prefect_password
from flows.service import prefect_tables
from pairflow.errors import JobFailedError

# Of a start that may be made again: it was too slow, or another command of a new home makes the same tables meanwhile,
# which ends one of the two with "duplicate column name" or the like, from within Alembic.
_PASSES = ("address already in use", "database is locked", "timed out", "Timeout", "/alembic/")


@dataclass(frozen=True)
class Starting:
    """A server that was told to start.

    Attributes:
        port: that it will listen on.
        holder: who holds it.
        log: of its output.
        patience_s: how long it may take, in seconds.
    """

    port: int
    holder: "subprocess.Popen[bytes]"
    log: Path
    patience_s: float


def begin(settings: Settings) -> Starting | None:
    """Tells one to start before Prefect is imported, which takes as long as a part of that start.

    Only where it is plain that one is wanted: the environment, which is ready, is all that could say otherwise.
    """
    allowed = os.environ.get("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "").lower() in ("true", "1")
    if "PREFECT_API_URL" in os.environ or "PREFECT_PROFILE" in os.environ or not allowed or _may_say_otherwise():
        return None
    if "prefect" in sys.modules:  # which has read its settings
        return None
    if settings.auth == "on":
        os.environ.update(_credentials(settings))
    (port,) = free_ports(1)
    return _start(settings, port, float(os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"]), os.environ)


def _may_say_otherwise() -> bool:
    """Whether a file has settings of Prefect's, beside the environment."""
    profiles = os.environ.get("PREFECT_PROFILES_PATH", f"{os.environ['PREFECT_HOME']}/profiles.toml")
    for name, words in (
        (profiles, b""),
        ("prefect.toml", b""),
        (".env", b"PREFECT_"),
        ("pyproject.toml", b"tool.prefect"),
    ):
        try:
            if words in Path(name).read_bytes():
                return True
        except FileNotFoundError:
            continue
        except OSError:
            return True
    return False


@contextlib.contextmanager
def temporary_server(settings: Settings, begun: Starting | None = None) -> Iterator[bool]:
    """One for this block, if the environment names none and Prefect may have one; it ends with this process.

    Within the block PREFECT_API_URL names it, as it would a lasting one: Prefect's clients need not load the server's
    code to find it, which takes seconds.

    Args:
        settings: whose home it is.
        begun: one that is starting; waited for.

    Yields:
        Whether there is one.

    Raises:
        JobFailedError: it does not start.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE, get_current_settings
    from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS as PATIENCE

    if PREFECT_API_URL.value() is not None or not PREFECT_SERVER_ALLOW_EPHEMERAL_MODE.value():
        if begun is not None:
            let_go(begun.holder)
        yield False
        return
    if begun is None:
        if settings.auth == "on":
            os.environ.update(_credentials(settings))
            _read_settings_again()
        environment = os.environ | get_current_settings().to_environment_variables(exclude_unset=True)
        begun = _start(settings, free_ports(1)[0], float(PATIENCE.value()), environment)
    url = f"http://127.0.0.1:{begun.port}/api"
    _wait(f"{url}/health", begun.patience_s, begun.log)
    os.environ["PREFECT_API_URL"] = url
    _read_settings_again()
    try:
        yield True
    finally:
        del os.environ["PREFECT_API_URL"]  # no address to tell anybody; what Prefect still has to send knows it


def _start(settings: Settings, port: int, patience_s: float, environment: Mapping[str, str]) -> Starting:
    log = settings.home / "prefect" / f"temporary-{os.getpid()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    request = json.dumps({"port": port, "log": str(log), "patience_s": patience_s})
    holder = start_holder("flows.command.temporary_prefect", request, environment=environment)
    # Before Prefect's own: at the end the last are called first, and send what is left to be sent.
    atexit.register(let_go, holder)
    return Starting(port, holder, log, patience_s)


def _credentials(settings: Settings) -> dict[str, str]:
    """Has the server ask for this home's token, and the clients of this process bring it."""
    token = access_token(settings.home)
    return prefect_credential(token) | {"PREFECT_SERVER_API_AUTH_STRING": prefect_password(token)}


def _read_settings_again() -> None:
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()


def _wait(url: str, patience_s: float, log: Path) -> None:
    """Returns when the server answers; a busy one may take longer for it than a client would wait."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with opener.open(url, timeout=10) as answer:
                answer.read()
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                said = log.read_text(errors="replace").strip().splitlines()[-5:] if log.is_file() else []
                raise JobFailedError(
                    f"Prefect's temporary server was not ready after {patience_s:.0f} s: {' / '.join(said)}; run the "
                    "same again, or keep one running with `pairflow up`"
                ) from None
            time.sleep(0.1)


def _hold(port: int, log: str, patience_s: float) -> int:
    import importlib.util

    found = importlib.util.find_spec("prefect")
    assert found is not None  # noqa: S101 - whoever started this has imported it
    assert found.submodule_search_locations  # noqa: S101
    package = Path(found.submodule_search_locations[0])
    words = [sys.executable, "-m", "uvicorn", "--app-dir", str(package.parent), "--factory"]
    words += ["prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--log-level", "error", "--lifespan", "on"]
    prefect_tables.lay(os.environ)
    # As Prefect starts it: no pages, and it knows that it is temporary. And no list of blocks, which only pages show.
    as_temporary = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    as_temporary |= {"PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "0"}
    try:
        code = hold(
            lambda: (words, os.environ | as_temporary),
            Path(log),
            again=lambda said: any(each in said for each in _PASSES),
            patience_s=patience_s,
        )
    finally:
        Path(log).unlink(missing_ok=True)
    return code or 0


if __name__ == "__main__":
    sys.exit(_hold(**json.loads(sys.argv[1])))
