"""Runs within a run that has ended do not stay at work, nor suspended, for ever."""

import pytest
from prefect import Flow, Task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed, Running

from flows.service import nested_runs


def _work() -> None:
    """What both runs are of."""


def _within(client: SyncPrefectClient, parent: FlowRun, state: State) -> FlowRun:
    task_run = client.create_task_run(Task(_work), flow_run_id=parent.id, dynamic_key=str(state.name))
    return client.create_flow_run(Flow(_work), state=state, parent_task_run_id=task_run.id)


@pytest.mark.parametrize(
    "state", [Running(), State(type=StateType.PAUSED, name="Suspended")], ids=["at work", "suspended"]
)
def test_end_as_their_parent_does(prefect_url: str, state: State) -> None:
    with temporary_settings({PREFECT_API_URL: prefect_url}), get_client(sync_client=True) as client:
        over, at_work = (client.create_flow_run(Flow(_work), state=each) for each in (Failed(), Running()))
        left, other = (_within(client, parent, state) for parent in (over, at_work))
        said = f"ended run '{left.name}': the run that it is a part of has ended"
        assert said in nested_runs.end_those_without_parent(client)
        ended = client.read_flow_run(left.id)
        assert (ended.state_name, ended.state.message if ended.state else "") == (
            "Crashed",
            "The run that this one is a part of has ended, and their common process with it. Press Retry there.",
        )
        assert client.read_flow_run(other.id).state_name == state.name
        assert said not in nested_runs.end_those_without_parent(client)
        for each in (other, at_work):
            client.set_flow_run_state(each.id, Failed(), force=True)
