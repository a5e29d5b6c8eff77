"""What a command line of the deployment names must exist: programs, modules, options, environment variables."""

import functools
import importlib.util
import re
from collections.abc import Iterable, Sequence

import cyclopts

from flows.settings import Settings

# A variable with such a name holds a secret, but for what only sounds so.
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|ACCESS_KEY|AUTH_STRING")
# Those of other makers, by the documentation of the image or library.
_OTHERS = re.compile(
    r"AWS_(ENDPOINT_URL|DEFAULT_REGION|ACCESS_KEY_ID|SECRET_ACCESS_KEY)|DO_NOT_TRACK|PG(PASSWORD|SSLMODE|DATA)"
    r"|POSTGRES_(USER|PASSWORD|DB)|ROOT_(SECRET_)?ACCESS_KEY(_ID)?|DATABASE_HOST"
    r"|RAY_(AUTH_MODE|AUTH_TOKEN|ADDRESS|USAGE_STATS_ENABLED|DEDUP_LOGS|COLOR_PREFIX)"
)


def unknown_variables(names: Iterable[str]) -> list[str]:
    """Environment variables that nobody reads."""
    from mlflow import environment_variables as mlflow_variables
    from prefect.settings.legacy import _get_valid_setting_names
    from prefect.settings.models.root import Settings as PrefectSettings

    ours = set()
    for name, field in Settings.model_fields.items():
        choices = getattr(field.validation_alias, "choices", [f"PAIRFLOW_{name.upper()}"])
        ours |= {str(each) for each in choices if str(each).isupper()}
    prefects = _get_valid_setting_names(PrefectSettings)
    return [
        name
        for name in names
        if name not in ours
        and name not in prefects
        and not hasattr(mlflow_variables, name)
        and name != "MLFLOW_DISABLE_TELEMETRY"
        and not _OTHERS.fullmatch(name)
    ]


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
    given = [each for each in rest if each.startswith("-")]
    if program == "prefect":
        return _prefect_problems(rest)
    if program == "mlflow":
        from mlflow.cli import cli as group
    else:
        from ray.scripts.scripts import cli as group
    known = {option for each in group.commands[rest[0]].params for option in (*each.opts, *each.secondary_opts)}
    return [f"{program} {rest[0]} has no {each}" for each in given if each.partition("=")[0] not in known]


@functools.cache
def _prefect() -> "cyclopts.App":
    from prefect.cli import _app

    return _app._app


def _prefect_problems(words: Sequence[str]) -> list[str]:
    """Parsed as Prefect's command line does, and not run."""
    try:
        _prefect().parse_args(list(words), exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        return [str(error)]
    return []
