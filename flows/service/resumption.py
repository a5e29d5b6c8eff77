"""What was at work when everything died, by kill or power failure: `pairflow up` ends it truthfully and resumes it.

The runs of our work pool are meant. Their processes are gone for sure when Prefect answers again and no worker runs
yet; Prefect still takes them for running, as nobody was left to say otherwise.
"""

from collections.abc import Sequence
from datetime import datetime

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import AwaitingRetry, Cancelled, Crashed

from flows.service import nested_runs
from flows.service.programs import WORK_POOL

MOST_RESUMPTIONS = 3
"""A run that takes the machine down with it must not do so for ever."""

_DIED = "All that `pairflow up` runs was killed, or the machine went down, while this run was at work."
_RESUMED = "`pairflow up` resumes this run"
_AT_WORK = (StateType.RUNNING, StateType.PENDING)


def end_interrupted(prefect: SyncPrefectClient, since: datetime) -> list[FlowRun]:
    """Ends the runs that were at work; those that are to be resumed.

    Args:
        prefect: whose worker does not run yet.
        since: the start of this `up`. What crashed later was ended by the automation for silent runs, which wakes with
            the server and may be quicker than this.
    """
    found = _runs(prefect, *_AT_WORK, StateType.CANCELLING, StateType.CRASHED)
    interrupted = []
    for run in found:
        if run.state is None:
            continue
        if run.state.type == StateType.CANCELLING:
            prefect.set_flow_run_state(run.id, Cancelled(message=f"{_DIED} It was being cancelled."), force=True)
        elif run.state.type in _AT_WORK:
            prefect.set_flow_run_state(run.id, Crashed(message=_DIED), force=True)
            interrupted.append(run)
        # An `up` that was itself killed between the two steps left the second one to this one.
        elif run.state.timestamp >= since or run.state.message == _DIED:
            interrupted.append(run)
    nested_runs.end_those_without_parent(prefect)
    return interrupted


def resume(prefect: SyncPrefectClient, runs: Sequence[FlowRun]) -> list[str]:
    """Schedules runs again, unless that was done too often; what was done, in words."""
    done = []
    for run in runs:
        times = sum(_is_resumption(state) for state in prefect.read_flow_run_states(run.id))
        if times < MOST_RESUMPTIONS:
            message = f"{_RESUMED}, for time {times + 1} of {MOST_RESUMPTIONS} at most; what is finished is kept."
            prefect.set_flow_run_state(run.id, AwaitingRetry(message=message))
            done.append(f"resumed run '{run.name}', which was at work when everything died")
        else:
            message = f"{_DIED} It was resumed {times} times before: look for the reason, then press Retry."
            prefect.set_flow_run_state(run.id, Crashed(message=message), force=True)
            done.append(
                f"did not resume run '{run.name}' again: everything died {times + 1} times while it was at work"
            )
    return done


def _runs(prefect: SyncPrefectClient, *types: StateType) -> list[FlowRun]:
    return prefect.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": list(types)}}}),
        work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [WORK_POOL]}}),
        limit=200,
    )


def _is_resumption(state: State) -> bool:
    return (state.message or "").startswith(_RESUMED)
