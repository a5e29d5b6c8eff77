"""What happens after a flow run has been cancelled or has crashed, in another process that knows its id alone.

That process is the worker; in a pool that does not say how runs are started it is a file of Prefect's, whose folder
comes first on its path and has a `storage.py`: what a flow imports at its top must need nothing of the package
`storage`, or no hook runs. So flows import what looks at the store where they use it.
"""

from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.logging.loggers import flow_run_logger
from prefect.states import Failed, State

from flows.cluster import submission
from flows.cluster.connection import Cluster
from flows.home.settings import Settings
from pairflow.errors import PairFlowError


def stop_jobs(flow: Any, flow_run: FlowRun, state: State) -> None:
    """Stops what a run left on the Ray cluster; a cluster that was started for the command went with it."""
    settings = Settings.read()
    if settings.ray_address is None:
        return
    logger = flow_run_logger(flow_run)
    try:
        with Cluster(settings) as cluster:
            for submission_id in submission.jobs_of(cluster.client, str(flow_run.id)):
                if submission.stop(cluster.client, submission_id):
                    logger.info("Ray job %s is stopped, as this run is %s", submission_id, state.name)
                else:
                    logger.info("Ray job %s is told to stop, as this run is %s", submission_id, state.name)
    except PairFlowError as error:
        logger.warning("could not look for jobs to stop: %s", error)


def explain_crash(flow: Any, flow_run: FlowRun, state: State) -> None:
    """Says why a run never came to its first line, where that is known: Prefect says "exit code 1" and no more.

    Prefect's server checks what is within `parameters`, but lets through whatever stands beside it.
    """
    if set(flow_run.parameters) == {"parameters"}:
        return
    given = ", ".join(sorted(flow_run.parameters)) or "nothing"
    message = (
        f"This flow takes one object, `parameters`; got {given[:200]}. Put the settings within it, such as "
        '{"parameters": {"dataset": {"name": "digits"}}}, and start a new run.'
    )
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run.id, Failed(message=message), force=True)
