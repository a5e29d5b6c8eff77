"""Runs within a run that has ended do not stay at work, nor suspended, for ever."""

import pytest
from prefect import Flow, Task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed, Running

from flows.service import nested_runs
from flows.stages.flow_run import first_of_process


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


def test_what_a_run_asked_a_worker_for_is_a_process_of_its_own(
    prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `run_deployment(..., timeout=0)` in a flow of a user leaves it: that one ends, what it asked for goes on."""
    with temporary_settings({PREFECT_API_URL: prefect_url}), get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(Flow(_work)), "asked for")
        asking = client.create_flow_run(Flow(_work), state=Completed())
        task_run = client.create_task_run(Task(_work), flow_run_id=asking.id, dynamic_key="asks")
        asked = client.create_flow_run_from_deployment(
            deployment, state=Running(), parent_task_run_id=task_run.id, name="asked for by another"
        )
        stage = _within(client, asked, Running())
        assert not [text for text in nested_runs.end_those_without_parent(client) if asked.name in text]
        assert {client.read_flow_run(each.id).state_name for each in (asked, stage)} == {"Running"}
        for each, first in ((asked, asked), (stage, asked), (asking, asking)):
            monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(each.id))
            assert first_of_process() == first.id
        for each in (asked, stage):
            client.set_flow_run_state(each.id, Failed(), force=True)
