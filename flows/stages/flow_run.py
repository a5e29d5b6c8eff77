"""What a flow run is called and found by in Prefect."""

from collections.abc import Sequence
from typing import Any, TypeVar, cast
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.pages import artifacts
from flows.parameters import FromPreset
from flows.recipes.changes import decided

R = TypeVar("R")


def describe_run(*, name: str | None = None, tags: Sequence[str] = ()) -> None:
    """Gives the current flow run a name that tells more, or adds tags, by which runs are found in Prefect's UI."""
    with get_client(sync_client=True) as client:
        known = client.read_flow_run(UUID(str(flow_run.id)))
        client.update_flow_run(known.id, name=name or known.name, tags=sorted({"pairflow", *known.tags, *tags}))


def show_decided(parameters: FromPreset) -> None:
    """Shows what was decided where somebody asked for it: a run within a run was told everything by the one above."""
    if flow_run.parent_flow_run_id is None:
        artifacts.show_settings(str(flow_run.id), parameters.preset, decided(parameters))


def leave_if_suspended() -> None:
    """Ends the process of a flow run that somebody suspended; Resume starts it again, and finds what is written.

    Prefect looks only where a task or a flow within it begins or ends, and while a job runs there is neither.
    """
    context = FlowRunContext.get()
    if context is None or not context.flow_run_suspension_request.is_requested():
        return
    if flow_run.parent_flow_run_id is not None:
        # Prefect suspends the run that it was told of; one within it would stay Running, and be ended as silent.
        message = "The run that this one is a part of is suspended, and goes on with it."
        with get_client(sync_client=True) as client:
            state: Any = State(type=StateType.PAUSED, name="Suspended", message=message)
            client.set_flow_run_state(UUID(str(flow_run.id)), state, force=True)
    context.flow_run_suspension_request.raise_if_requested()


def short_count(number: int) -> str:
    """285, 133k or 1.2M: as many figures as a name has room for."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= 10 * size:
            return f"{number / size:.0f}{unit}"
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def ended(result: R, message: str) -> R:
    """A flow's result as the state that says it: who calls the flow gets the result, who looks at it the message."""
    return cast(R, Completed(message=message, data=result))
