"""What a command line of the deployment names must exist: programs, modules, options, environment variables."""

import functools
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# A variable with such a name holds a secret.
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|ACCESS_KEY|AUTH_STRING")
# Those of other makers, by the documentation of the image or library; DATABASE_HOST is the manifests' own.
_OTHERS = re.compile(
    r"AWS_(ENDPOINT_URL|DEFAULT_REGION|ACCESS_KEY_ID|SECRET_ACCESS_KEY)|DO_NOT_TRACK|PG(PASSWORD|SSLMODE|DATA)"
    r"|POSTGRES_(USER|PASSWORD|DB)|ROOT_(SECRET_)?ACCESS_KEY(_ID)?|DATABASE_HOST"
    r"|RAY_(AUTH_MODE|AUTH_TOKEN|ADDRESS|USAGE_STATS_ENABLED|DEDUP_LOGS|COLOR_PREFIX|JOB_START_TIMEOUT_SECONDS)"
)


@functools.cache
def _known() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("known_words.py")],
            env={"PATH": "/usr/bin:/bin", "HOME": home, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Environment variables that nobody reads."""
    return [each for each in names if each not in _known()["variables"] and not _OTHERS.fullmatch(each)]


def problems(words: Sequence[str]) -> list[str]:
    """What a command of our own image names that there is not."""
    program, *rest = words
    if program == "chown":
        return []
    if program == "python":
        if rest[0] == "-c":
            compile(rest[1], "<health check>", "exec")
            return []
        return [] if rest[0] == "-m" and importlib.util.find_spec(rest[1]) else [f"no module {rest[1:]}"]
    name = " ".join([program, *rest[: 2 if program == "prefect" else 1]])
    options = _known()["options"].get(name)
    if options is None:
        return [f"no command {name}"]
    given = {each.partition("=")[0] for each in rest if each.startswith("-")}
    return [f"{name} has no {each}" for each in given if each not in options]
