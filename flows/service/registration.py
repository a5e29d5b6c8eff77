"""What Prefect's server is told at every `pairflow up`: work pool, queues, deployments, and who ends silent runs.

Telling it again changes nothing. `flows.home.environment.prepare_environment`, or the like, comes before the import.
"""

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias, get_args

import yaml
from cronsim import CronSim, CronSimError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentScheduleUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import DeploymentSchedule, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.utilities.processutils import command_to_string
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError

from flows.home.environment import HEARTBEATS
from flows.home.settings import Settings
from flows.service.programs import AUTOMATION, DEPLOYMENTS, WORK_POOL
from pairflow.errors import SpecError
from pairflow.spec import OWN_DATA, DatasetName

_SILENCE_S = int(2.5 * int(HEARTBEATS["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]))
_Schedule: TypeAlias = DeploymentScheduleCreate | DeploymentScheduleUpdate
_OURS = re.compile(r"(?:retrain |setting-)(\w+)(?:: .*)?")  # slug of a schedule that a setting made; earlier ones too
_HEARTBEAT = "prefect.flow-run.heartbeat"
# A run that has ended or waits sends none, and is not silent for that.
# An event bears its state's name, and `retrain` ends in one of its own.
_SAYS_MORE = (
    "Completed",
    "Skipped",
    "Failed",
    "Cancelled",
    "Crashed",
    "Scheduled",
    "AwaitingRetry",
    "Paused",
    "Suspended",
)


def register(settings: Settings, *, watch_anew: bool = False) -> list[str]:
    """Makes all of it as this version wants it; the names of the deployments, as `flow/deployment`.

    Args:
        settings: limits and schedules.
        watch_anew: the server has just started: what it remembers of heartbeats before that must end no run, which on
            a busy machine would be one that was resumed meanwhile. The runs of before are ended otherwise.

    Raises:
        SpecError: deployments.yaml names a flow that there is not, or cannot be read.
    """
    with get_client(sync_client=True) as client:
        _make_pool(client, settings.max_runs)
        names = []
        for deployment in deployments(settings):
            name = f"{deployment.flow_name}/{deployment.name}"
            # Also where we have none: Prefect takes those away that are not named.
            deployment.schedules = _merged(deployment.schedules or (), _known_schedules(client, name))
            deployment.apply()
            names.append(name)
        _make_automation(client, anew=watch_anew)
    return names


def deployments(settings: Settings, path: Path = DEPLOYMENTS) -> list[RunnerDeployment]:
    """The deployments of deployments.yaml.

    Raises:
        SpecError: it names a flow that there is not, or cannot be read; or a schedule's setting does not fit.
    """
    try:
        entries: Sequence[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise SpecError(f"{path} cannot be read as a list of deployments: {error!r}") from error
    return [_deployment(entry, settings) for entry in entries]


def _deployment(entry: dict[str, Any], settings: Settings) -> RunnerDeployment:
    deployment = RunnerDeployment.from_entrypoint(
        entry["entrypoint"],
        entry["name"],
        description=entry["description"],
        tags=entry["tags"],
        parameters=entry["parameters"],
        work_pool_name=entry["work_pool"]["name"],
        work_queue_name=entry["work_pool"]["work_queue_name"],
        schedules=_schedules(entry, settings) if "schedules" in entry else None,
    )
    deployment._path = None  # the flow is imported from the installed package, wherever the worker stands
    return deployment


def _schedules(entry: dict[str, Any], settings: Settings) -> list[DeploymentScheduleCreate]:
    """One schedule a dataset of PAIRFLOW_RETRAIN_DATASETS; without any, one of the default dataset that is off.

    Raises:
        SpecError: a dataset that there is not or that needs more than a name, or no cron expression.
    """
    named = settings.retrained
    unknown = [name for name in named if name not in get_args(DatasetName) or name in OWN_DATA]
    if unknown:
        why = "needs a path: add its schedule in Prefect's UI" if unknown[0] in OWN_DATA else "is no dataset"
        raise SpecError(f"PAIRFLOW_RETRAIN_DATASETS: '{unknown[0]}' {why}; `pairflow datasets` lists those there are")
    written = settings.retrain_cron or entry["schedules"][0]["cron"]
    try:
        cron = CronSchedule(cron=written, timezone="UTC")
    except ValidationError as error:
        raise SpecError(
            f"PAIRFLOW_RETRAIN_CRON: {written!r} is no cron expression such as '0 3 * * 0', Sundays at 03:00 UTC: "
            f"{error.errors()[0]['msg']}"
        ) from None
    defaults = entry["parameters"]["parameters"]
    return [
        DeploymentScheduleCreate(
            schedule=cron,
            active=bool(named),
            parameters={"parameters": {**defaults, "dataset": {"name": name}}},
            slug=_slug(name, written),
        )
        for name in named or (defaults["dataset"]["name"],)
    ]


def _slug(dataset: str, cron: str) -> str:
    """What Prefect's page shows of a schedule, instead of its time: hence with the time, in words."""
    try:
        when = CronSim(cron, datetime.now(UTC)).explain()
    except CronSimError:  # as @weekly, which Prefect knows and this does not
        when = cron
    return f"retrain {dataset}: {when[0].lower()}{when[1:]}, UTC"


def _dataset_of(slug: str | None) -> str | None:
    """Whose retraining it is, if a setting made that schedule."""
    found = _OURS.fullmatch(slug or "")
    return None if found is None else found[1]


def _known_schedules(client: SyncPrefectClient, name: str) -> list[DeploymentSchedule]:
    """Those that the server knows of a deployment; none before the first registration."""
    try:
        return list(client.read_deployment_by_name(name).schedules)
    except ObjectNotFound:
        return []


def _merged(ours: Sequence[_Schedule], known: Sequence[DeploymentSchedule]) -> list[_Schedule]:
    """Ours as the settings have them now, but switched as people left them; theirs as they are."""
    switched = {_dataset_of(each.slug): each.active for each in known}
    merged: list[_Schedule] = [
        each.model_copy(update={"active": switched.get(_dataset_of(each.slug), each.active)}) for each in ours
    ]
    datasets = {_dataset_of(each.slug) for each in ours}
    fields = ("schedule", "active", "max_scheduled_runs", "parameters", "slug")
    for each in known:
        dataset = _dataset_of(each.slug)
        if dataset is None or (dataset not in datasets and each.active):
            merged.append(DeploymentScheduleCreate(**{name: getattr(each, name) for name in fields}))
    return merged


def _make_pool(client: SyncPrefectClient, max_runs: int) -> None:
    template = ProcessWorker.get_default_base_job_template()
    # Where none is said, Prefect starts two more processes before a run's own, which look for the folder of its code.
    template["variables"]["properties"]["command"]["default"] = command_to_string(
        [sys.executable, "-m", "prefect.engine"]
    )
    pool = WorkPoolCreate(
        name=WORK_POOL,
        type=ProcessWorker.type,
        description="Flow runs on this machine; their work is done on the Ray cluster.",
        base_job_template=template,
        concurrency_limit=max_runs,
    )
    try:
        client.create_work_pool(pool)
    except ObjectAlreadyExists:
        update = WorkPoolUpdate(concurrency_limit=max_runs, description=pool.description, base_job_template=template)
        client.update_work_pool(WORK_POOL, update)


def _make_automation(client: SyncPrefectClient, *, anew: bool) -> None:
    """Runs whose process and worker are both dead are ended by nobody else.

    No hook runs then: the reconciler stops the Ray job.
    """
    automation = AutomationCore(
        name=AUTOMATION,
        description=f"Heartbeats come every {HEARTBEATS['PREFECT_FLOWS_HEARTBEAT_FREQUENCY']} s.",
        enabled=True,
        trigger=EventTrigger(
            after={_HEARTBEAT},
            expect={_HEARTBEAT, *(f"prefect.flow-run.{each}" for each in _SAYS_MORE)},
            match=ResourceSpecification.model_validate({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=_SILENCE_S),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"Nothing was heard of this run's process for {_SILENCE_S} s: it was killed, or its machine "
                "went down. What is finished is kept: press Retry to go on from there.",
            )
        ],
    )
    found = client.read_automations_by_name(AUTOMATION)
    if anew:
        for each in found:  # and with each what was counted for it
            client.delete_automation(each.id)
    if anew or not found:
        client.create_automation(automation)
    elif _comparable(found[0]) != _comparable(automation):
        client.update_automation(found[0].id, automation)


def _comparable(automation: AutomationCore) -> Any:
    """What is ours in an automation: the server adds an id to its trigger."""
    data = automation.model_dump(mode="json", include=set(AutomationCore.model_fields))
    data["trigger"].pop("id", None)
    data["trigger"]["expect"].sort()
    return data
