"""Environment variables of the processes that we start or are: Prefect, MLflow and Ray read theirs when imported."""

import os
from pathlib import Path

from flows.home.addresses import Servers, running_servers
from flows.home.network import set_up_network
from flows.home.places import make_home
from flows.home.settings import Settings, variable
from flows.home.token import access_token, cluster_environment, mlflow_credential, prefect_credential

# Names as each release reads them; DO_NOT_TRACK must be exactly "true", because MLflow does not understand "1".
_QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # of pages that open in the view for agents
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# Another release's history is migrated at the start: 14 s when idle, several times that when busy.
_EMBEDDED_PREFECT = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
}
# Seconds; the automation of flows/service/registration.py ends a run that has been silent for more than two of them.
HEARTBEATS = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
# Every setting goes on to the jobs but these: of servers, of the command that starts a job, or not for jobs to know.
_NOT_FOR_JOBS = {
    *("ray_address", "ray_ui_url", "object_store_mb", "jobs_at_once", "prefect_port", "mlflow_port", "ray_port"),
    *("auth", "database_url", "max_runs", "retrain_datasets", "retrain_cron"),
}


def job_environment(settings: Settings) -> dict[str, str]:
    """Environment variables with which a job's process reads these same settings.

    Where flow and jobs share no disk, a job has the home of the node that it runs on.
    """
    unfit = _NOT_FOR_JOBS | (set() if settings.store_is_local or settings.jobs_run_here else {"home"})
    given = {name: getattr(settings, name) for name in type(settings).model_fields if name not in unfit}
    return {
        **{variable(name): str(value) for name, value in given.items() if value is not None},
        "PAIRFLOW_STORE": settings.store,
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        # Threads that spin while they wait bring a machine with other work on it to a crawl (4 times slower here).
        "OMP_WAIT_POLICY": "PASSIVE",
        # Ray retries a task that was killed for memory without end, unless the job's driver says otherwise.
        "RAY_task_oom_retries": "3",
        **_QUIET,
    }


def prefect_environment(settings: Settings) -> dict[str, str]:
    """Environment variables that give Prefect's pages and client this home's history, and keep it quiet."""
    return {"PREFECT_HOME": str(settings.home / "prefect"), **_EMBEDDED_PREFECT, **_QUIET}


def prepare_environment(settings: Settings) -> None:
    """Sets this process up for the servers of `pairflow up`, or else for embedded ones.

    Call it before prefect, mlflow or ray are imported: they read their environment then. What the user has set stays
    as it is: with PREFECT_API_URL, for instance, runs go to that server and none is embedded.

    Raises:
        SpecError: PAIRFLOW_HOME cannot be made.
    """
    make_home(settings.home)
    variables = {**prefect_environment(settings), "MLFLOW_TRACKING_URI": settings.tracking_uri}
    if (servers := running_servers(settings.home)) is not None:
        # A run that is started here and killed ends as those of the worker do: by its missing heartbeats.
        variables |= {"PREFECT_API_URL": servers.prefect_api_url, **HEARTBEATS}
        if settings.ray_address == servers.ray_url:
            variables |= cluster_environment(access_token(settings.home))
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    if settings.mlflow_uri is not None:
        os.environ["MLFLOW_TRACKING_URI"] = settings.mlflow_uri  # absolute now
    if servers is not None and servers.auth:
        os.environ.update(_credentials(servers, settings.home))
    set_up_network()  # now that it names the servers


def _credentials(servers: Servers, home: Path) -> dict[str, str]:
    """What lets this process into the home's own servers; nobody else's are told."""
    token, given = access_token(home), dict[str, str]()
    if servers.has_prefect_at(os.environ["PREFECT_API_URL"]):
        given |= prefect_credential(token)
    if servers.has_mlflow_at(os.environ["MLFLOW_TRACKING_URI"]):
        given |= mlflow_credential(token)
    return given
