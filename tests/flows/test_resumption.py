"""Which runs `pairflow up` takes up again after everything died, on a real Prefect server and no worker."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import AwaitingRetry, Cancelling, Completed, Crashed, Failed, Pending, Running

from flows.service.programs import WORK_POOL
from flows.service.resumption import MOST_RESUMPTIONS, end_interrupted, resume


@flow
def nothing() -> None:
    """Has runs that nobody runs."""


@pytest.fixture(scope="module")
def prefect(prefect_url: str) -> Iterator[SyncPrefectClient]:
    with temporary_settings({PREFECT_API_URL: prefect_url}), get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
        yield client


@pytest.fixture(scope="module")
def deployment(prefect: SyncPrefectClient) -> UUID:
    return prefect.create_deployment(prefect.create_flow(nothing), "nothing", work_pool_name=WORK_POOL)


@pytest.fixture
def begin(prefect: SyncPrefectClient, deployment: UUID) -> "_Begin":
    return _Begin(prefect, deployment)


class _Begin:
    """Runs with a history."""

    def __init__(self, prefect: SyncPrefectClient, deployment: UUID) -> None:
        self._prefect, self._deployment = prefect, deployment

    def __call__(self, *states: State) -> UUID:
        run = self._prefect.create_flow_run_from_deployment(self._deployment).id
        for state in states:
            self._prefect.set_flow_run_state(run, state, force=True)
        return run


def _state(prefect: SyncPrefectClient, run: UUID) -> State:
    found = prefect.read_flow_run(run).state
    assert found is not None
    return found


def _end(prefect: SyncPrefectClient) -> dict[UUID, FlowRun]:
    return {run.id: run for run in end_interrupted(prefect, datetime.now(UTC))}


def test_what_was_at_work_is_resumed_and_nothing_else(prefect: SyncPrefectClient, begin: _Begin) -> None:
    running, pending = begin(Running()), begin(Pending())
    cancelling = begin(Running(), Cancelling())
    others = [begin(Completed()), begin(Failed()), begin(Crashed(message="another day")), begin()]
    before = [_state(prefect, each) for each in others]
    of_a_terminal = prefect.create_flow_run(nothing, state=Running()).id

    interrupted = _end(prefect)
    assert set(interrupted) == {running, pending}
    for each in interrupted:
        assert _state(prefect, each).is_crashed()
        assert "the machine went down" in str(_state(prefect, each).message)
    assert _state(prefect, cancelling).is_cancelled()
    assert [_state(prefect, each) for each in others] == before
    assert _state(prefect, of_a_terminal).is_running()  # its process may live: heartbeats tell

    # An `up` that is killed here leaves the rest to the next one.
    again = _end(prefect)
    assert set(again) == {running, pending}
    assert len(resume(prefect, list(again.values()))) == 2
    for each in again:
        assert _state(prefect, each).name == "AwaitingRetry"
        assert f"for time 1 of {MOST_RESUMPTIONS}" in str(_state(prefect, each).message)
    assert _end(prefect) == {}


def test_the_automation_may_be_quicker(prefect: SyncPrefectClient, begin: _Begin) -> None:
    since = datetime.now(UTC)
    run = begin(Running(), Crashed(message="Nothing was heard of this run's process"))
    assert [each.id for each in end_interrupted(prefect, since)] == [run]


def test_a_run_that_takes_everything_down_is_not_resumed_for_ever(prefect: SyncPrefectClient, begin: _Begin) -> None:
    run = begin(Running())
    for _ in range(MOST_RESUMPTIONS):
        (text,) = resume(prefect, list(_end(prefect).values()))
        assert text.startswith("resumed")
        prefect.set_flow_run_state(run, Running(), force=True)
    (text,) = resume(prefect, list(_end(prefect).values()))
    assert text.startswith("did not resume")
    state = _state(prefect, run)
    assert state.is_crashed()
    assert "resumed 3 times before" in str(state.message)
    assert _end(prefect) == {}


def test_a_retry_by_hand_is_no_resumption(prefect: SyncPrefectClient, begin: _Begin) -> None:
    begin(*[AwaitingRetry(), Running()] * 4)
    (text,) = resume(prefect, list(_end(prefect).values()))
    assert text.startswith("resumed")
