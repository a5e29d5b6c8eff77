"""What a flow run is called and found by in Prefect."""

import contextlib
from collections.abc import Sequence
from typing import Any, TypeVar, cast
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.events import emit_event
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


def first_of_process() -> UUID:
    """The run that the current one is a part of, or itself.

    One of a deployment has a process of its own, also where another run asked for it (Prefect's `run_deployment`).
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(str(flow_run.id)))
        while run.deployment_id is None and run.parent_task_run_id is not None:
            above = client.read_task_run(run.parent_task_run_id).flow_run_id
            if above is None:
                break
            run = client.read_flow_run(above)
    return run.id


def show_decided(parameters: FromPreset) -> None:
    """Shows what was decided where somebody asked for it: a run within a run was told everything by the one above."""
    if str(first_of_process()) == flow_run.id:
        artifacts.show_settings(str(flow_run.id), parameters.preset, decided(parameters))


def leave_if_suspended() -> None:
    """Ends the process of a flow run that somebody suspended; Resume starts it again, and finds what is written.

    Prefect looks only where a task or a flow within it begins or ends, and while a job runs there is neither.
    """
    if (context := FlowRunContext.get()) is not None:
        context.flow_run_suspension_request.raise_if_requested()


def is_being_cancelled() -> bool:
    """Whether somebody cancels the run that this one is a part of: hooks.py then waits for what was told to stop."""
    with contextlib.suppress(Exception), get_client(sync_client=True) as client:  # who cannot ask waits here
        state = client.read_flow_run(first_of_process()).state
        return state is not None and state.is_cancelling()
    return False


def note_suspension() -> None:
    """Says once more that a suspended run is suspended, when its job has stopped; and so is the run within it.

    Until then heartbeats came, and the run would be ended as one that has fallen silent.
    """
    context = FlowRunContext.get()
    if context is None or not context.flow_run_suspension_request.is_requested():
        return
    first = first_of_process()
    if str(first) != flow_run.id:
        message = "The run that this one is a part of is suspended, and goes on with it."
        state: Any = State(type=StateType.PAUSED, name="Suspended", message=message)
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(str(flow_run.id)), state, force=True)
    emit_event(
        "prefect.flow-run.Suspended",
        resource={"prefect.resource.id": f"prefect.flow-run.{first}"},
    )


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
