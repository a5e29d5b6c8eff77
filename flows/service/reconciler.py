"""Stops Ray jobs that nobody waits for any more: `python -m flows.service.reconciler`, under the supervisor.

A flow run stops its job when it ends in any way that lets it speak, and its hooks do when the worker lives. Where
flow process and worker are both gone, no hook runs anywhere; the job would go on for nobody. Likewise the runs within
a run (the stages of a pipeline) stay RUNNING when the process of both is killed: they end here as their parent did.

A process, and not a scheduled flow, because a flow run costs four seconds of a core each time and would wait for a
worker that may be what has failed.
"""

import time

from prefect.client.orchestration import SyncPrefectClient, get_client

from flows.cluster import submission
from flows.cluster.connection import Cluster
from flows.home.settings import Settings
from flows.service import nested_runs, rounds

_SECONDS_BETWEEN_ROUNDS = 10.0
_STOP_TIMEOUT_S = 8.0


def reconcile(prefect: SyncPrefectClient, cluster: Cluster) -> list[str]:
    """One round; what was done, in words.

    Raises:
        JobFailedError: Ray cannot be reached.
    """
    done = nested_runs.end_those_without_parent(prefect)
    for submission_id, metadata in submission.alive_jobs(cluster.client).items():
        # A run that this Prefect does not know belongs to another one, and its job is none of our business.
        runs = [nested_runs.read(prefect, metadata.get(name)) for name in ("flow_run_id", "root_flow_run_id")]
        ended = next((run for run in runs if run is not None and nested_runs.has_ended(run)), None)
        # One that waits for a GPU cannot end before it gets it, and must not keep the others waiting.
        if ended is not None and submission.stop(cluster.client, submission_id, timeout_s=_STOP_TIMEOUT_S):
            done.append(f"stopped Ray job {submission_id}: its run '{ended.name}' has ended as {ended.state_name}")
    return done


def main() -> None:
    """Reconciles every ten seconds; what cannot be reached now is asked again then."""
    last_problem = ""
    while True:
        try:
            settings = Settings.read()
            with get_client(sync_client=True) as prefect, Cluster(settings) as cluster:
                for text in reconcile(prefect, cluster):
                    print(text, flush=True)
            rounds.note(settings.home)
            last_problem = ""
        except Exception as error:  # servers come and go; this outlives them, and says so once
            problem = f"{type(error).__name__}: {error}"
            if problem != last_problem:
                print(f"cannot look after the jobs for now: {problem}", flush=True)
            last_problem = problem
        time.sleep(_SECONDS_BETWEEN_ROUNDS)


if __name__ == "__main__":
    main()
