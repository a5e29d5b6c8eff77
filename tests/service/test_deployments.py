"""What deploy/prefect.yaml registers: names, schedules and forms, against a snapshot; no server is needed."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from flows.service.registration import deployments
from flows.settings import Settings
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
    path = tmp_path / "prefect.yaml"
    path.write_text("deployments:\n  - name: [")
    with pytest.raises(SpecError, match=r"prefect\.yaml"):
        deployments(Settings(), path)
    with pytest.raises(SpecError, match="nosuch"):
        deployments(Settings(), tmp_path / "nosuch.yaml")


if __name__ == "__main__":
    _SNAPSHOT.write_text(json.dumps(_described(), indent=1) + "\n", encoding="utf-8")
