"""Where things run and where they lie: operational settings, read from the environment when asked for.

Nothing in here ever changes a fingerprint or the content of a result.
"""

import os
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from flows.home.addresses import running_servers
from flows.home.places import (
    absolute_path,
    absolute_tracking_uri,
    absolute_url,
    resolved_home,
    sqlite_path,
    sqlite_url,
)
from pairflow.errors import SpecError
from pairflow.paths import default_home

_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


class Settings(BaseSettings):
    """Operational settings; `Settings.read()` takes them from the environment."""

    model_config = SettingsConfigDict(
        env_prefix="PAIRFLOW_", frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    home: Path = Field(
        default_factory=default_home,
        description="Everything local: store, checkpoints, Prefect's and MLflow's databases (PAIRFLOW_HOME).",
    )
    store_url: str | None = Field(
        None,
        validation_alias=AliasChoices("PAIRFLOW_STORE", "store_url"),
        description="fsspec URL of the pair store; default <home>/store (PAIRFLOW_STORE).",
    )
    data_dir: Path | None = Field(None, description="Folder with local copies of datasets (PAIRFLOW_DATA_DIR).")
    ray_address: str | None = Field(
        None,
        validation_alias=AliasChoices("RAY_ADDRESS", "ray_address"),
        description="Dashboard address (http://host:8265) of a Ray cluster; default: one is started.",
    )
    mlflow_uri: str | None = Field(
        None,
        validation_alias=AliasChoices("MLFLOW_TRACKING_URI", "mlflow_uri"),
        description="MLflow tracking URI; default SQLite under <home>/mlflow (MLFLOW_TRACKING_URI).",
    )
    mlflow_ui_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Where a browser finds MLflow, for links to it; default its tracking URI, if that is a server's.",
    )
    ray_ui_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Where a browser finds Ray's dashboard, for links to it; default RAY_ADDRESS.",
    )
    num_workers: int | None = Field(
        None, ge=1, description="Shards coupled at once; default as many as the cluster's CPUs allow."
    )
    cpus_per_task: float = Field(1, gt=0, description="CPUs that Ray reserves for one shard.")
    gpus_per_task: float = Field(
        0, ge=0, description="GPUs that Ray reserves for one shard; default 1 for the cuda engine, else none."
    )
    support_parts: int = Field(
        1,
        ge=1,
        description="Parts, each in a process with the CPUs and GPUs of a shard, that a support larger than a node is "
        "split into; default 1, a copy a node. Never changes the pairs.",
    )
    threads_per_job: int | None = Field(
        None, ge=1, description="CPU threads of a training or evaluation job; default all cores it may run on."
    )
    jobs_at_once: int | None = Field(
        None,
        ge=1,
        description="Trainings that a comparison runs at the same time; default one a core, up to 4, or half as many "
        "more if that is all there are.",
    )
    gpus_per_job: float | None = Field(
        None,
        ge=0,
        description="GPUs that Ray reserves for a training or evaluation job, or for each of its workers; other jobs "
        "wait. Default 1 where the cluster has GPUs; 0.5 lets two small models share one.",
    )
    train_workers: int = Field(
        1,
        ge=1,
        description="Processes that train one model together, with one CPU each and the GPUs of a job; with a store "
        "on a disk they must see PAIRFLOW_HOME. The model differs by rounding alone.",
    )
    training_data: Literal["auto", "resident", "streamed"] = Field(
        "auto",
        description="Where the rows of a training lie: resident, on its device; streamed, read from the store as they "
        "are needed; auto, the former where they take up to half of the free memory. Never changes the model.",
    )
    training_data_mb: int | None = Field(
        None,
        ge=1,
        description="Rows that a streamed training, or each of its workers, holds, in MiB; default a quarter of the "
        "free memory. The more, the fewer times an epoch reads the store.",
    )
    mlflow_patience: float = Field(
        600, ge=0, description="Seconds that the end of a stage waits for an MLflow that does not answer."
    )
    ray_patience: float | None = Field(
        None,
        ge=0,
        description="Seconds that a run waits for Ray to start, or for the head of RAY_ADDRESS to be back; default 300 "
        "for a Ray of this machine, and 0 for another's.",
    )
    object_store_mb: int = Field(
        1024, ge=80, description="Shared memory of the local Ray cluster, in MiB (at least 80)."
    )
    prefect_port: int = Field(4200, ge=1024, le=65_535, description="Port of Prefect's server under `pairflow up`.")
    mlflow_port: int = Field(5000, ge=1024, le=65_535, description="Port of MLflow's server under `pairflow up`.")
    ray_port: int = Field(8265, ge=1024, le=65_535, description="Port of Ray's dashboard under `pairflow up`.")
    auth: Literal["on", "off"] = Field(
        "on",
        description="Whether Prefect and MLflow under `pairflow up` let in only who has the token of `pairflow token`; "
        "off: everybody who reaches 127.0.0.1, other users of this machine and web pages in a browser among them.",
    )
    database_url: SecretStr | None = Field(
        None,
        description="postgresql://USER@HOST/NAME: where `pairflow up` keeps the histories of Prefect and MLflow; "
        "default SQLite under <home>. Better without the password: PGPASSWORD or ~/.pgpass (PAIRFLOW_DATABASE_URL).",
    )
    max_runs: int = Field(
        4, ge=1, description="Flow runs that the worker of `pairflow up` has in hand at once; others wait."
    )

    retrain_datasets: str = Field(
        "",
        pattern=r"^[a-z0-9-]*( *, *[a-z0-9-]+)*$",
        description="Datasets, separated by commas, that `pairflow up` has retrained on schedule; default none.",
    )
    retrain_cron: str | None = Field(None, description="When, as cron in UTC; default Sundays at 03:00.")

    @classmethod
    def read(cls) -> Self:
        """Settings from the environment as it is now; servers that it does not name are those of `pairflow up`, if any.

        Raises:
            SpecError: a setting that does not fit, by the name of its environment variable.
        """
        try:
            settings = cls()
        except ValidationError as error:
            lines = [f"{variable(str(item['loc'][0]))}: {item['msg']}" for item in error.errors()]
            raise SpecError("; ".join(lines) + "; correct the environment variable") from None
        home = resolved_home(settings.home)
        update: dict[str, object] = {"home": home}
        # Once, here: jobs and servers read these in other folders.
        if settings.store_url is not None:
            update["store_url"] = absolute_url(settings.store_url, "PAIRFLOW_STORE")
        if settings.mlflow_uri is not None:
            update["mlflow_uri"] = absolute_tracking_uri(settings.mlflow_uri)
        if settings.data_dir is not None:
            update["data_dir"] = absolute_path(settings.data_dir, "PAIRFLOW_DATA_DIR")
        if (servers := running_servers(home)) is not None:
            update |= servers.ports | {"auth": "on" if servers.auth else "off"}
            update["ray_address"] = settings.ray_address or servers.ray_url
            update.setdefault("mlflow_uri", servers.mlflow_url)
        return settings.model_copy(update=update)

    @property
    def store(self) -> str:
        """fsspec URL (or absolute path) of the pair store."""
        return self.store_url or str(self.home / "store")

    @property
    def store_is_local(self) -> bool:
        """Whether the store is a folder of a disk, and not of S3 or the like."""
        return "://" not in self.store

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking URI."""
        return self.mlflow_uri or sqlite_url(self.home / "mlflow" / "mlflow.db")

    @property
    def tracks_at_home(self) -> bool:
        """Whether the history is the one that `pairflow up` shows."""
        return self.mlflow_uri is None or self.mlflow_uri == f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"

    @property
    def has_history(self) -> bool:
        """False where MLflow's database is a file that is not there, and asking would make it."""
        path = sqlite_path(self.tracking_uri)
        return path is None or path.exists()

    @property
    def retrained(self) -> tuple[str, ...]:
        """The datasets that `pairflow up` is to retrain on schedule."""
        return tuple(dict.fromkeys(filter(None, (each.strip() for each in self.retrain_datasets.split(",")))))

    @property
    def mlflow_pages(self) -> str | None:
        """Beginning of the addresses of MLflow's pages; None where no server shows them."""
        url = self.mlflow_ui_url or self.tracking_uri
        return url.rstrip("/") if url.startswith("http") else None

    @property
    def ray_pages(self) -> str | None:
        """Beginning of the addresses of Ray's pages; None of a cluster that ends with its command."""
        url = self.ray_ui_url or self.ray_address
        return None if self.ray_address is None or url is None else url.rstrip("/")

    @property
    def runs_dir(self) -> Path:
        """Checkpoints and results, a folder per training fingerprint."""
        return self.home / "runs"

    @property
    def evaluations_dir(self) -> Path:
        """Scores and samples of one model, a folder per evaluation fingerprint."""
        return self.home / "evaluations"

    @property
    def reports_dir(self) -> Path:
        """Tables and pictures, a folder per evaluation fingerprint."""
        return self.home / "reports"

    @property
    def known_data_dir(self) -> Path:
        """What is known of data that were read here, a file per dataset."""
        return self.home / "known-data"

    def trainings_at_once(self, number: int) -> int:
        """How many of so many trainings run at the same time.

        A core each, by default, up to 4. One and a half rounds of that are over sooner as a single one, in which they
        take turns at the cores: three on two cores take one and a half times as long as one, and not twice.
        """
        if self.jobs_at_once is not None:
            return self.jobs_at_once
        cores = min(4, os.cpu_count() or 1)
        return number if 2 * number <= 3 * cores else cores

    def at_store(self, store: str | None) -> Self:
        """These settings, with the store of a flow's parameters if they name one."""
        return self if store is None else self.model_copy(update={"store_url": absolute_url(store)})

    @property
    def jobs_run_here(self) -> bool:
        """Whether jobs see the files and devices that this process sees: Ray is this machine's."""
        return self.ray_address is None or urlsplit(self.ray_address).hostname in _THIS_MACHINE


def variable(field: str) -> str:
    """The environment variable of a setting."""
    known = {"store_url": "PAIRFLOW_STORE", "ray_address": "RAY_ADDRESS", "mlflow_uri": "MLFLOW_TRACKING_URI"}
    return known.get(field, field if field.isupper() else f"PAIRFLOW_{field.upper()}")
