"""Whether MLflow says that a stage is finished, asked without MLflow's client: to import that alone takes two seconds.

What is asked is what `Lineage.finished` asks: the last run of a stage, by what it computes. MLflow's SQLite file is
read as it lies, and a server of this machine is asked over HTTP; any other MLflow is asked by its own client.
"""

import base64
import json
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from flows.home.places import sqlite_path
from flows.home.settings import Settings
from flows.lineage import tags as tag

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PATIENCE_S = 5.0
_LAST_RUN = f"""
    SELECT runs.run_uuid, runs.status, experiments.experiment_id,
        (SELECT value FROM tags WHERE tags.run_uuid = runs.run_uuid AND tags.key = '{tag.PREFECT_RUN_ID}')
    FROM experiments
    JOIN runs ON runs.experiment_id = experiments.experiment_id AND runs.lifecycle_stage = 'active'
    JOIN tags AS of ON of.run_uuid = runs.run_uuid AND of.key = '{tag.FINGERPRINT}' AND of.value = ?
    JOIN tags AS stage ON stage.run_uuid = runs.run_uuid AND stage.key = '{tag.STAGE}' AND stage.value = ?
    WHERE experiments.name = ? AND experiments.lifecycle_stage = 'active'
    ORDER BY runs.start_time DESC, runs.run_uuid LIMIT 1
"""  # noqa: S608 - the names are ours


@dataclass(frozen=True)
class FinishedRun:
    """A run of MLflow's that is done.

    Attributes:
        run_id: its id.
        experiment_id: of its experiment.
        prefect_run_id: of the flow run that it belongs to, as it says.
    """

    run_id: str
    experiment_id: str
    prefect_run_id: str


def finished_run(settings: Settings, dataset: str, stage: str, fingerprint: str) -> FinishedRun | None:
    """The run of a stage that is done, by what it computes; None if there is none, or MLflow does not say.

    Args:
        settings: which MLflow.
        dataset: name of the dataset, whose experiment it is in.
        stage: name of the flow.
        fingerprint: of the stage's result.
    """
    uri = settings.tracking_uri
    try:
        if (database := sqlite_path(uri)) is not None:
            return _in_file(str(database), dataset, stage, fingerprint) if database.is_file() else None
        if urlsplit(uri).scheme == "http" and urlsplit(uri).hostname in _LOOPBACK:
            return _by_server(uri.rstrip("/"), dataset, stage, fingerprint)
    except (sqlite3.Error, OSError, HTTPException, ValueError, LookupError, TypeError):  # what is no MLflow answers so
        return None
    return _by_client(settings, dataset, stage, fingerprint)


def waits_to_be_sent(settings: Settings) -> bool:
    """Whether something was said that MLflow has not been sent yet: a comparison takes it along."""
    folder = settings.home / "mlflow" / "unsent"
    return any(folder.glob("*.jsonl"))


def _in_file(path: str, dataset: str, stage: str, fingerprint: str) -> FinishedRun | None:
    """As the tables of MLflow 3 have it, which are read and never written here."""
    with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=_PATIENCE_S)) as connection:
        rows = connection.execute(_LAST_RUN, (fingerprint, stage, f"{tag.EXPERIMENT_PREFIX}{dataset}")).fetchall()
    if not rows:
        return None
    run_id, status, experiment_id, prefect_run_id = rows[0]
    return FinishedRun(run_id, str(experiment_id), prefect_run_id or "") if status == "FINISHED" else None


def _by_server(url: str, dataset: str, stage: str, fingerprint: str) -> FinishedRun | None:
    """As MLflow's REST API answers."""
    name = urlencode({"experiment_name": f"{tag.EXPERIMENT_PREFIX}{dataset}"})
    experiment = _answer(f"{url}/api/2.0/mlflow/experiments/get-by-name?{name}")["experiment"]
    if experiment["lifecycle_stage"] != "active":
        return None
    chosen = {
        "experiment_ids": [experiment["experiment_id"]],
        "filter": f"tags.`{tag.FINGERPRINT}` = '{fingerprint}' and tags.`{tag.STAGE}` = '{stage}'",
        "max_results": 1,
        "order_by": ["start_time DESC"],
    }
    runs = _answer(f"{url}/api/2.0/mlflow/runs/search", chosen).get("runs", [])
    if not runs or runs[0]["info"]["status"] != "FINISHED":
        return None
    tags = {each["key"]: each["value"] for each in runs[0]["data"].get("tags", [])}
    return FinishedRun(runs[0]["info"]["run_id"], experiment["experiment_id"], tags.get(tag.PREFECT_RUN_ID, ""))


def _answer(url: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    if (token := os.environ.get("MLFLOW_TRACKING_TOKEN")) is not None:
        headers["Authorization"] = f"Bearer {token}"
    elif (user := os.environ.get("MLFLOW_TRACKING_USERNAME")) is not None:
        both = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(both.encode()).decode()}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - http on loopback
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_PATIENCE_S) as response:
        answer = json.load(response)
    if not isinstance(answer, dict):
        raise ValueError(f"{url} is no MLflow's: it answers with {type(answer).__name__}")
    return answer


def _by_client(settings: Settings, dataset: str, stage: str, fingerprint: str) -> FinishedRun | None:
    from flows.lineage.tracking import Lineage

    return Lineage(settings).finished_run(dataset, stage, fingerprint)
