"""Stops Ray jobs that nobody waits for any more: `python -m flows.service.reconciler`, under the supervisor.

A flow run stops its job when it ends in any way that lets it speak, and its hooks do when the worker lives. Where
flow process and worker are both gone, no hook runs anywhere; the job would go on for nobody. Likewise the runs within
a run (the stages of a pipeline) stay RUNNING when the process of both is killed: they end here as their parent did.

A process, and not a scheduled flow, because a flow run costs four seconds of a core each time and would wait for a
worker that may be what has failed.
"""

import time
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from flows import ray_jobs
from flows.ray_cluster import Cluster
from flows.settings import Settings

_SECONDS_BETWEEN_ROUNDS = 10.0


def reconcile(prefect: SyncPrefectClient, cluster: Cluster) -> list[str]:
    """One round; what was done, in words.

    Raises:
        JobFailedError: Ray cannot be reached.
    """
    done = [_end_stage(prefect, run) for run in _stages_without_parent(prefect)]
    for submission_id, metadata in ray_jobs.alive_jobs(cluster.client).items():
        # A run that this Prefect does not know belongs to another one, and its job is none of our business.
        runs = [_read(prefect, metadata.get(name)) for name in ("flow_run_id", "root_flow_run_id")]
        if ended := next((run for run in runs if run is not None and _has_ended(run)), None):
            ray_jobs.stop(cluster.client, submission_id)
            done.append(f"stopped Ray job {submission_id}: its run '{ended.name}' has ended as {ended.state_name}")
    return done


def main() -> None:
    """Reconciles every ten seconds; what cannot be reached now is asked again then."""
    last_problem = ""
    while True:
        try:
            with get_client(sync_client=True) as prefect, Cluster(Settings.read()) as cluster:
                for text in reconcile(prefect, cluster):
                    print(text, flush=True)
            last_problem = ""
        except Exception as error:  # servers come and go; this outlives them, and says so once
            problem = f"{type(error).__name__}: {error}"
            if problem != last_problem:
                print(f"cannot look after the jobs for now: {problem}", flush=True)
            last_problem = problem
        time.sleep(_SECONDS_BETWEEN_ROUNDS)


def _stages_without_parent(prefect: SyncPrefectClient) -> list[FlowRun]:
    """Runs within a run that has ended, which themselves have not."""
    states = {"type": {"any_": [StateType.RUNNING, StateType.PENDING]}}
    within = {"is_null_": False}
    found = prefect.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate({"state": states, "parent_task_run_id": within}), limit=200
    )
    return [run for run in found if (parent := _parent(prefect, run)) is not None and _has_ended(parent)]


def _has_ended(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


def _parent(prefect: SyncPrefectClient, run: FlowRun) -> FlowRun | None:
    if run.parent_task_run_id is None:
        return None
    try:
        task_run = prefect.read_task_run(run.parent_task_run_id)
    except ObjectNotFound:
        return None
    return _read(prefect, task_run.flow_run_id)


def _read(prefect: SyncPrefectClient, flow_run_id: UUID | str | None) -> FlowRun | None:
    try:
        return None if flow_run_id is None else prefect.read_flow_run(UUID(str(flow_run_id)))
    except (ObjectNotFound, ValueError):
        return None


def _end_stage(prefect: SyncPrefectClient, run: FlowRun) -> str:
    message = "The run that this one is a part of has ended, and their common process with it. Press Retry there."
    prefect.set_flow_run_state(run.id, Crashed(message=message), force=True)
    return f"ended run '{run.name}': the run that it is a part of has ended"


if __name__ == "__main__":
    main()
