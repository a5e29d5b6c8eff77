"""What flows/service/deployments.yaml registers: names, schedules and forms, against a snapshot; no server needed."""

import hashlib
import json
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule

from flows import retrain
from flows.home.settings import Settings
from flows.parameters import RetrainParameters
from flows.service import registration
from flows.service.registration import deployments
from pairflow.errors import SpecError

_SNAPSHOT = Path(__file__).with_name("deployments.json")


def _described() -> dict[str, Any]:
    """Each deployment as far as people see it; of a form, the fields and a digest of all that is said about them."""
    described = {}
    for each in deployments(Settings()):
        schema = each._parameter_openapi_schema.model_dump(exclude_unset=True)
        (form,) = (
            model for model in schema["definitions"].values() if model["title"] == f"{each.name.title()}Parameters"
        )
        text = json.dumps(schema, sort_keys=True).encode()
        described[f"{each.flow_name}/{each.name}"] = {
            "entrypoint": each.entrypoint,
            "tags": each.tags,
            "queue": f"{each.work_pool_name}/{each.work_queue_name}",
            "schedules": [schedule.model_dump(mode="json") for schedule in each.schedules or []],
            "defaults": each.parameters,
            "fields": sorted(form["properties"]),
            "form_sha256": hashlib.sha256(text).hexdigest(),
        }
    return described


def test_as_they_were() -> None:
    """Write it anew with `python tests/service/test_deployments.py` if the change is meant."""
    assert _described() == json.loads(_SNAPSHOT.read_text(encoding="utf-8"))


def test_every_form_has_one_parameter_and_describes_every_field() -> None:
    for each in deployments(Settings()):
        schema = each._parameter_openapi_schema.model_dump(exclude_unset=True)
        assert list(schema["properties"]) == ["parameters"]
        assert each.description
        for model in schema["definitions"].values():
            undescribed = [name for name, field in model["properties"].items() if not field.get("description")]
            assert undescribed == [], model["title"]


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "deployments.yaml"
    path.write_text("deployments:\n  - name: [")
    with pytest.raises(SpecError, match=r"deployments\.yaml"):
        deployments(Settings(), path)
    with pytest.raises(SpecError, match="nosuch"):
        deployments(Settings(), tmp_path / "nosuch.yaml")


def _schedules(**given: Any) -> list[DeploymentScheduleCreate]:
    (retrain,) = (each for each in deployments(Settings(**given)) if each.name == "retrain")
    schedules = retrain.schedules or []
    assert all(isinstance(each, DeploymentScheduleCreate) for each in schedules)
    return cast("list[DeploymentScheduleCreate]", schedules)


class TestSchedules:
    def test_off_until_somebody_wants_it(self) -> None:
        (only,) = _schedules()
        assert (only.active, only.slug) == (False, "retrain digits: at 03:00 on Sunday, UTC")
        assert isinstance(only.schedule, CronSchedule)
        assert (only.schedule.cron, only.schedule.timezone) == ("0 3 * * 0", "UTC")

    def test_one_a_dataset_of_the_setting(self) -> None:
        made = _schedules(retrain_datasets="qm9, digits,qm9", retrain_cron="30 2 * * 1")
        assert [(each.slug, each.active) for each in made] == [
            ("retrain qm9: at 02:30 on Monday, UTC", True),
            ("retrain digits: at 02:30 on Monday, UTC", True),
        ]
        assert made[0].parameters["parameters"]["dataset"] == {"name": "qm9"}
        RetrainParameters.model_validate(made[0].parameters["parameters"])
        assert {each.schedule.cron for each in made if isinstance(each.schedule, CronSchedule)} == {"30 2 * * 1"}

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"retrain_datasets": "nosuch"}, "'nosuch' is no dataset"),
            ({"retrain_datasets": "digits,tokens"}, "'tokens' needs a path"),
            ({"retrain_cron": "every sunday"}, "PAIRFLOW_RETRAIN_CRON: 'every sunday' is no cron expression"),
        ],
    )
    def test_settings_that_do_not_fit(self, given: dict[str, str], says: str) -> None:
        with pytest.raises(SpecError, match=says):
            deployments(Settings(**given))  # type: ignore[arg-type]

    def test_what_people_switched_and_added_stays(self) -> None:
        monday = CronSchedule(cron="0 0 * * 1", timezone="UTC")

        def known(slug: str | None, active: bool) -> DeploymentSchedule:
            return DeploymentSchedule(id=uuid4(), deployment_id=uuid4(), schedule=monday, active=active, slug=slug)

        added = known(None, True), known("mine", False)
        off, gone = known("setting-qm9", False), known("setting-patches", False)  # as earlier versions called them
        on = known("retrain nci: at 00:00 on Monday, UTC", True)
        ours = _schedules(retrain_datasets="qm9,digits", retrain_cron="0 4 * * *")
        merged = registration._merged(ours, [*added, off, on, gone])
        assert [(each.slug, each.active, getattr(each.schedule, "cron", None)) for each in merged] == [
            ("retrain qm9: at 04:00 every day, UTC", False, "0 4 * * *"),  # the new time, off as somebody left it
            ("retrain digits: at 04:00 every day, UTC", True, "0 4 * * *"),
            (None, True, "0 0 * * 1"),
            ("mine", False, "0 0 * * 1"),
            ("retrain nci: at 00:00 on Monday, UTC", True, "0 0 * * 1"),  # no setting any more, but somebody has it on
        ]


def test_a_state_of_our_own_is_no_silence() -> None:
    """The automation that ends silent runs hears of a run's end by the name of its state."""
    assert retrain.SKIPPED in registration._SAYS_MORE


if __name__ == "__main__":
    _SNAPSHOT.write_text(json.dumps(_described(), indent=1) + "\n", encoding="utf-8")
