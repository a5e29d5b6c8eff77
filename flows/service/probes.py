"""Whether the servers do what they are there for in the background, and not only answer.

Each probe asks for a small piece of work and looks whether it was done, or looks at work that had to be done by now.
It returns why it was not; None where all is well.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import yaml

from flows.home.settings import Settings
from flows.service.http import ask, request
from flows.service.programs import AUTOMATION, DEPLOYMENTS, WORK_POOL, headers, urls

_MARK = "mlflow.pairflow.watch"  # MLflow's pages do not show tags that begin like this
_OVERDUE = timedelta(seconds=60)
"""Prefect calls a run Late 15 s after its time, and looks every 5 s."""
_EVENT = "pairflow.watch"
_AUTOMATION = "pairflow: watch over automations"
_WITHIN_S = 10
"""After which Prefect misses the second event: the least that it allows."""


class _Api:
    """Prefect's, as its owner asks it."""

    def __init__(self, settings: Settings) -> None:
        self._at = f"{urls(settings)['prefect']}/api"
        self._headers = headers("prefect", settings)

    def ask(self, path: str, body: Any) -> Any:
        return ask(f"{self._at}/{path}", body, self._headers)

    def tell(self, path: str, body: Any) -> None:
        request(f"{self._at}/{path}", body, self._headers)


class Prefect:
    """Prefect's scheduler and its marking of late runs."""

    def __init__(self, settings: Settings) -> None:
        self._api, self._retrained = _Api(settings), settings.retrained

    def gone(self) -> str | None:
        """What `pairflow up` told Prefect is there as it was told: people can delete it on Prefect's pages."""
        entries = yaml.safe_load(DEPLOYMENTS.read_text(encoding="utf-8"))["deployments"]
        wanted = {each["name"]: each["work_pool"]["work_queue_name"] for each in entries}
        # A deployment keeps the name of a queue that is gone, but not its pool.
        deployments = self._deployments()
        at = ((each["name"], each["work_pool_name"], each["work_queue_name"]) for each in deployments)
        found = {name: queue for name, pool, queue in at if pool == WORK_POOL}
        queues = {each["name"] for each in self._queues()}
        automations = self._api.ask("automations/filter", {"automations": {"name": {"any_": [AUTOMATION]}}})
        lacking = [] if self._pools() else [f"work pool {WORK_POOL}"]
        lacking += [f"queue {each}" for each in dict.fromkeys(wanted.values()) if each not in queues]
        lacking += [f"deployment {name}" for name, queue in wanted.items() if found.get(name) != queue]
        slugs = [one["slug"] or "" for each in deployments for one in each["schedules"]]
        scheduled = {slug.partition(":")[0].removeprefix("retrain ") for slug in slugs}
        lacking += [f"schedule of retraining {each}" for each in self._retrained if each not in scheduled]
        lacking += [] if any(each["enabled"] for each in automations) else [f"automation '{AUTOMATION}'"]
        if not lacking:
            return None
        return f"somebody deleted or changed: {', '.join(lacking)}; `pairflow up` puts that right while all runs on"

    def registered(self) -> str | None:
        """All of it is there, and lets runs start."""
        if reason := self.gone():
            return reason
        held = [
            f"{kind} {each['name']}"
            for kind, several in (("work pool", self._pools()), ("queue", self._queues()))
            for each in several
            if each["is_paused"] or each["concurrency_limit"] == 0
        ]
        if not held:
            return None
        return f"paused, or limited to no run at all: {', '.join(held)}; nothing starts there until its page says so"

    def _deployments(self) -> list[dict[str, Any]]:
        return list(self._api.ask("deployments/filter", {}))

    def _queues(self) -> list[dict[str, Any]]:
        return list(self._api.ask(f"work_pools/{WORK_POOL}/queues/filter", {})) if self._pools() else []

    def _pools(self) -> list[dict[str, Any]]:
        return list(self._api.ask("work_pools/filter", {"work_pools": {"name": {"any_": [WORK_POOL]}}}))

    def scheduler(self) -> str | None:
        """A schedule that is on has runs in the future."""
        lacking = []
        for each in self._deployments():
            # A rule of RFC 5545 may end, and then has none for good.
            on = [one for one in each["schedules"] if one["active"] and "rrule" not in one["schedule"]]
            if on and not each["paused"] and not self._upcoming(each["id"]):
                lacking.append(each["name"])
        if not lacking:
            return None
        return f"the schedules of {', '.join(lacking)} are on, and no runs are made: nothing will start"

    def _upcoming(self, deployment_id: str) -> int:
        runs = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"after_": _now()}}
        body = {"deployments": {"id": {"any_": [deployment_id]}}, "flow_runs": runs}
        return int(self._api.ask("flow_runs/count", body))

    def late_runs(self) -> str | None:
        """A run whose time has passed is running, or called Late."""
        overdue = {"before_": _now(-_OVERDUE)}
        runs = {"state": {"name": {"any_": ["Scheduled"]}}, "expected_start_time": overdue}
        found = int(self._api.ask("flow_runs/count", {"flow_runs": runs}))
        seconds = int(_OVERDUE.total_seconds())
        return f"{found} run(s) are {seconds} s over their time, and are not said to be late" if found else None


class Events:
    """Prefect's events and automations, by one of each of our own.

    An automation like the one that ends silent runs waits for a second event that never comes, and then does nothing:
    that it did so is an event again, which is read from the database. So one look sees events taken in, stored, and
    automations evaluated and acted upon.
    """

    EVERY_S = 300.0
    """Between two probes: each one leaves four events, which Prefect forgets after a week."""
    PATIENCE_S = 120.0
    """It takes some 25 s on an idle machine: two flushes of five seconds and a wait of ten."""

    def __init__(self, settings: Settings) -> None:
        self._api = _Api(settings)
        self._automation = ""
        self._event: dict[str, Any] | None = None
        self._sent = self._next = 0.0
        self._reason: str | None = None

    def look(self) -> str | None:
        """Sends an event if it is time to, and sees what became of the last one."""
        if not self._automation:
            self._automation = self._find() or self._make()
        if self._event is None and time.monotonic() >= self._next:
            self._send()
        elif self._event is not None:
            missing = self._missing(self._event)
            if missing is None:
                self._event, self._reason, self._next = None, None, self._sent + self.EVERY_S
            elif time.monotonic() - self._sent > self.PATIENCE_S:
                self._event, self._reason = None, missing  # and another one is sent at once
        return self._reason

    def _send(self) -> None:
        resource = {"prefect.resource.id": f"pairflow.watch.{uuid4()}"}
        event = {"id": str(uuid4()), "occurred": _now(), "event": _EVENT, "resource": resource, "payload": {}}
        self._api.tell("events", [event])
        self._event, self._sent = event, time.monotonic()

    def _missing(self, event: dict[str, Any]) -> str | None:
        """What did not happen to an event, the first thing first."""
        since = {"occurred": {"since": event["occurred"]}}
        if not self._count(since | {"id": {"id": [event["id"]]}}):
            return "an event that Prefect has taken is not stored: events are lost, and automations may be"
        acted = {"event": {"name": ["prefect.automation.action.executed"]}}
        if not self._count(since | acted | {"resource": {"id": [f"prefect.automation.{self._automation}"]}}):
            return "an automation that was due has not acted: runs whose machine went down would stay Running"
        return None

    def _count(self, wanted: dict[str, Any]) -> int:
        return int(self._api.ask("events/filter", {"filter": wanted, "limit": 1})["total"])

    def _find(self) -> str:
        body = {"automations": {"name": {"any_": [_AUTOMATION]}}}
        return next((str(each["id"]) for each in self._api.ask("automations/filter", body)), "")

    def _make(self) -> str:
        trigger = {
            "type": "event",
            "posture": "Proactive",
            "after": [_EVENT],
            "expect": [f"{_EVENT}.again"],
            "match": {"prefect.resource.id": ["pairflow.watch.*"]},
            "for_each": ["prefect.resource.id"],
            "threshold": 1,
            "within": _WITHIN_S,
        }
        about = "It does nothing, every five minutes; `pairflow status` looks whether it does."
        body = {"name": _AUTOMATION, "description": about, "enabled": True, "trigger": trigger}
        return str(self._api.ask("automations/", body | {"actions": [{"type": "do-nothing"}]})["id"])


def mlflow_writes(settings: Settings) -> str | None:
    """What is written to MLflow's database is there when it is asked for."""
    api, given = f"{urls(settings)['mlflow']}/api/2.0/mlflow/experiments", headers("mlflow", settings)
    found = ask(f"{api}/search?max_results=1", None, given).get("experiments")
    if not found:
        return None
    experiment, value = found[0]["experiment_id"], _now()
    ask(f"{api}/set-experiment-tag", {"experiment_id": experiment, "key": _MARK, "value": value}, given)
    tags = ask(f"{api}/get?experiment_id={experiment}", None, given)["experiment"].get("tags", [])
    if {"key": _MARK, "value": value} in tags:
        return None
    return "a tag that was set is not there: what runs log may be lost"


def ray_writes(settings: Settings) -> str | None:
    """Ray's head keeps what it is given, and there is a node that can work."""
    at, given = urls(settings)["ray"], headers("ray", settings)
    # As the files of a job are handed over; Ray forgets a package that nobody uses after ten minutes.
    package = f"{at}/api/packages/gcs/pairflow_watch_{int(time.time())}.zip"
    request(package, b"watch", given, "PUT")
    request(package, None, given)
    return None if ray_has_a_node(settings) else "no node of the cluster lives: jobs would wait for ever"


def ray_has_a_node(settings: Settings) -> bool:
    """Whether a raylet is up: the dashboard answers before the first one is, and after the last."""
    nodes = ask(f"{urls(settings)['ray']}/nodes?view=summary", None, headers("ray", settings))["data"]["summary"]
    return any(each["raylet"].get("state") == "ALIVE" for each in nodes)


def _now(offset: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) + offset).isoformat()
