"""A schedule of `retrain`, by the REST calls that Prefect's UI makes."""

from typing import Any

from .user import User


class Schedule:
    """One that the server knows."""

    def __init__(self, user: User, schedule_id: str) -> None:
        self.id = schedule_id
        self._user = user
        self._deployment_id = user.deployment("retrain")["id"]

    @classmethod
    def make(cls, user: User, schedule: dict[str, Any], *, active: bool, **parameters: Any) -> "Schedule":
        body = {"schedule": schedule, "active": active, "parameters": {"parameters": parameters} if parameters else {}}
        (made,) = user.ask(f"deployments/{user.deployment('retrain')['id']}/schedules", [body])
        return cls(user, made["id"])

    @classmethod
    def of_setting(cls, user: User, name: str) -> "Schedule":
        known = user.deployment("retrain")["schedules"]
        (found,) = (each for each in known if (each["slug"] or "").startswith(f"retrain {name}: "))
        return cls(user, found["id"])

    @classmethod
    def of_people(cls, user: User, *, active: bool | None = None) -> "list[Schedule]":
        """Those that people made; `pairflow up` hands them over to a new registration, where they get another id."""
        found = [each for each in user.deployment("retrain")["schedules"] if each["slug"] is None]
        return [cls(user, each["id"]) for each in found if active in (None, each["active"])]

    def switch(self, active: bool) -> None:
        self._call("PATCH", {"active": active})

    def end(self) -> None:
        """Switches it off, and waits until nothing of it is to come or at work."""
        self.switch(False)
        ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        self._user.wait_for(
            lambda: {each["state_type"] for each in self.runs()} <= ended,
            timeout_s=400,
            or_say=lambda: [each["state"] for each in self.runs()],
        )

    def remove(self) -> None:
        self._call("DELETE", None)

    def runs(self, *states: str) -> list[dict[str, Any]]:
        """Runs that this schedule made, the earliest first."""
        wanted: dict[str, Any] = {"deployment_id": {"any_": [self._deployment_id]}}
        if states:
            wanted["state"] = {"name": {"any_": list(states)}}
        body = {"flow_runs": wanted, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
        found: list[dict[str, Any]] = self._user.ask("flow_runs/filter", body)
        return [each for each in found if (each["created_by"] or {}).get("id") == self.id]

    def is_scheduled(self) -> None:
        """Waits until there are runs to come."""
        self._user.wait_for(lambda: self.runs("Scheduled"), timeout_s=120)

    def fires(self) -> dict[str, Any]:
        """The first run of this schedule that began by itself, when it has ended."""
        ends = ("Completed", "Skipped", "Failed", "Crashed")
        self._user.wait_for(
            lambda: self.runs(*ends), timeout_s=600, or_say=lambda: [each["state"] for each in self.runs()]
        )
        return self.runs(*ends)[0]

    def _call(self, method: str, body: dict[str, Any] | None) -> None:
        self._user.tell(method, f"deployments/{self._deployment_id}/schedules/{self.id}", body)
