"""Runs within a run, such as the stages of a pipeline: one process has both, so they end as their parent does.

Not those of a deployment that a run asked for (Prefect's `run_deployment`): a worker starts a process for each.

Where that process is killed, Prefect ends the parent and leaves these RUNNING; and PAUSED, where a parent that somebody
suspended was not resumed in time.
"""

from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed


def end_those_without_parent(prefect: SyncPrefectClient) -> list[str]:
    """Ends runs within a run that has ended; what was done, in words."""
    states = {"type": {"any_": [StateType.RUNNING, StateType.PENDING, StateType.PAUSED]}}
    wanted = {"state": states, "parent_task_run_id": {"is_null_": False}, "deployment_id": {"is_null_": True}}
    found = prefect.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted), limit=200)
    return [_end(prefect, run) for run in found if (parent := _parent(prefect, run)) is not None and has_ended(parent)]


def has_ended(run: FlowRun) -> bool:
    """Whether a run's state is final."""
    return run.state is not None and run.state.is_final()


def read(prefect: SyncPrefectClient, flow_run_id: UUID | str | None) -> FlowRun | None:
    """A flow run; None if this Prefect does not know it."""
    try:
        return None if flow_run_id is None else prefect.read_flow_run(UUID(str(flow_run_id)))
    except (ObjectNotFound, ValueError):
        return None


def _parent(prefect: SyncPrefectClient, run: FlowRun) -> FlowRun | None:
    if run.parent_task_run_id is None:
        return None
    try:
        task_run = prefect.read_task_run(run.parent_task_run_id)
    except ObjectNotFound:
        return None
    return read(prefect, task_run.flow_run_id)


def _end(prefect: SyncPrefectClient, run: FlowRun) -> str:
    message = "The run that this one is a part of has ended, and their common process with it. Press Retry there."
    prefect.set_flow_run_state(run.id, Crashed(message=message), force=True)
    return f"ended run '{run.name}': the run that it is a part of has ended"
