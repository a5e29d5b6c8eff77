"""The Ray cluster that jobs go to: a given one, or one on this machine for as long as it is needed."""

import contextlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from flows.cluster.local import START_PATIENCE_S, LocalCluster
from flows.home.addresses import running_servers
from flows.home.environment import job_environment
from flows.home.settings import Settings
from pairflow.errors import JobFailedError, PairFlowError, SpecError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from flows.cluster.own_jobs import OwnJobs

# What the client raises for a head that is gone: those of `requests` are no ConnectionError, but an OSError.
UNREACHABLE = (RuntimeError, OSError)
_SIGNS_OF_GPUS = ("/dev/nvidiactl", "/dev/dxg")
"""Device files, natively and on Windows' Linux."""


class Cluster:
    """The Ray cluster of `settings`, or one on this machine for as long as this context lasts.

    A local cluster ends with the context; a cluster of somebody else is left alone. Where jobs may want GPUs, which are
    Ray's to give, or several workers train, it is started on entering, and takes jobs by its server. Else jobs are
    processes of this one, and start before Ray does (`flows.cluster.own_jobs`).

    Raises:
        SpecError: RAY_ADDRESS is no dashboard address.
    """

    def __init__(self, settings: Settings) -> None:
        address = settings.ray_address
        if address is not None and not address.startswith(("http://", "https://")):
            raise SpecError(
                f"RAY_ADDRESS must be a dashboard address such as http://127.0.0.1:8265 (jobs are submitted over "
                f"HTTP), got {address!r}; unset it to have a local cluster started"
            )
        self.settings = settings
        self.gives_jobs: dict[str, str] = {}
        """Environment variables that every job has which its job server starts, whatever it is submitted with."""
        self._job_settings: Settings | None = None
        self._local: LocalCluster | None = None
        self._own_jobs: OwnJobs | None = None
        self._client: JobSubmissionClient | OwnJobs | None = None
        self._one_at_a_time = threading.RLock()

    def __enter__(self) -> Self:
        if self.settings.ray_address is None:
            by_server = self._needs_its_server()
            if not by_server:
                self._job_settings = self.settings.model_copy(update={"gpus_per_job": 0.0})
            of_all = job_environment(self._job_settings or self.settings)
            patience = self.settings.ray_patience
            self._local = LocalCluster(
                self.settings.home,
                object_store_mb=self.settings.object_store_mb,
                job_server=by_server,
                for_jobs=of_all,
                patience_s=START_PATIENCE_S if patience is None else patience,
            )
            if by_server:
                self.gives_jobs = of_all
                self._local.start()
            else:
                from flows.cluster.own_jobs import OwnJobs

                self._client = self._own_jobs = OwnJobs(self._local, of_all)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own_jobs is not None:
            self._own_jobs.close()
        if self._local is not None:
            self._local.stop()

    def expect(self, *modules: str) -> None:
        """Jobs of these modules are about to be submitted, in this order: where that can be, each one's process starts
        before it is known."""
        if self._own_jobs is not None:
            self._own_jobs.expect(*modules)

    def prepare(self) -> None:
        """Waits for a cluster that is starting, and loads its client, in a thread; who asks hears what went wrong."""

        def ask() -> None:
            with contextlib.suppress(PairFlowError, *UNREACHABLE):
                _ = self.job_settings

        if self._local is not None and self._own_jobs is None:
            threading.Thread(target=ask, name="ray-client", daemon=True).start()

    @property
    def client(self) -> "JobSubmissionClient | OwnJobs":
        """The job server's client, or what stands for it.

        Raises:
            JobFailedError: the cluster cannot be reached, or does not start.
        """
        with self._one_at_a_time:
            return self._ask_for_client()

    def _ask_for_client(self) -> "JobSubmissionClient | OwnJobs":
        if self._client is None:
            if self._local is not None:
                from flows.cluster.ray_client import JobClient

                self._local.wait()
                self._client = JobClient(self._local.address, headers=self._local.headers)
            else:
                self._client = self._connect()
        return self._client

    def _connect(self) -> "JobSubmissionClient":
        from flows.cluster.ray_client import JobClient

        address = self.settings.ray_address
        servers = running_servers(self.settings.home)
        # A head of `pairflow up` that was killed is started again; nobody says so of another cluster's.
        patience = self.settings.ray_patience
        if patience is None:
            patience = START_PATIENCE_S if servers is not None and servers.ray_url == address else 0.0
        deadline = time.monotonic() + patience
        while True:
            try:
                return JobClient(address)
            except UNREACHABLE as error:
                if time.monotonic() > deadline:
                    raise JobFailedError(
                        f"cannot reach the Ray cluster at {address}: {error}; correct RAY_ADDRESS, or unset it to have "
                        "a local cluster started (PAIRFLOW_RAY_PATIENCE are the seconds to wait for it)"
                    ) from None
                time.sleep(1)

    @property
    def job_settings(self) -> Settings:
        """Settings as jobs get them: a job takes one GPU, if nobody says how many, and the cluster has any.

        Raises:
            JobFailedError: the cluster cannot be reached.
        """
        with self._one_at_a_time:
            if self._job_settings is None:
                gpus = self.settings.gpus_per_job
                if gpus is None:
                    gpus = min(1.0, self._num_gpus())
                self._job_settings = self.settings.model_copy(update={"gpus_per_job": gpus})
            return self._job_settings

    def _num_gpus(self) -> float:
        """GPUs of the nodes that are there now."""
        try:
            # The client has no public call for this; its own one brings the token along.
            client = cast("JobSubmissionClient", self.client)  # of jobs of one's own it is known that they have none
            answer = client._do_request("GET", "/api/v0/nodes", params={"detail": "1"})
            answer.raise_for_status()
            nodes = answer.json()["data"]["result"]["result"]
        except UNREACHABLE as error:
            raise JobFailedError(f"the Ray cluster does not say which GPUs it has: {error}") from None
        return float(sum(each["resources_total"].get("GPU", 0) for each in nodes if each["state"] == "ALIVE"))

    def _needs_its_server(self) -> bool:
        """Whether Ray may find GPUs on this machine, or somebody says that there are some; or several workers train.

        Ray Train asks Ray's dashboard for the state of its controller, once a second.
        """
        if self.settings.train_workers > 1:
            return True
        if self.settings.gpus_per_job is not None:
            return self.settings.gpus_per_job > 0
        told = os.environ.get("RAY_OVERRIDE_RESOURCES", "")  # Ray reads it, and says what is wrong with it
        return '"GPU"' in told or any(Path(each).exists() for each in _SIGNS_OF_GPUS)
