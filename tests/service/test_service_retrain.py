"""Retraining by the REST API, three times; what it decides is the subject of tests/flows/test_retrain.py."""

import json
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from .user import User

pytestmark = pytest.mark.timeout(1800)  # of a machine that is very busy

# (parameters, the field that the refusal names)
_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"name": "../../etc/passwd"}, "parameters.name"),
    ({"name": "Capitals"}, "parameters.name"),
    ({"name": "a" * 65}, "parameters.name"),
    ({"name": "line\nbreak"}, "parameters.name"),
    ({"steps": 0}, "parameters.steps"),
    ({"steps": 10**400}, "parameters.steps"),
    ({"trials": 1}, "parameters.trials"),
    ({"num_samples": "all"}, "parameters.num_samples"),
    ({"margin": -0.1}, "parameters.margin"),
    ({"confidence": 1}, "parameters.confidence"),
    ({"method": "best"}, "parameters.method"),
    ({"champion": "pairflow-digits@champion"}, "champion"),
]


@pytest.mark.parametrize(("parameters", "names"), _REFUSED)
def test_refused_by_the_server(user: User, parameters: dict[str, Any], names: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        user.start("retrain", parameters)
    with refusal.value as answer:
        assert answer.code == 409
        assert names in json.load(answer)["detail"]


def test_the_second_is_skipped_and_a_row_more_is_coupled(
    user: User, mlflow_client: MlflowClient, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).integers(5, size=(41, 6), dtype=np.uint8)
    np.save(tmp_path / "rows.npy", rows[:40])
    parameters = {
        "name": "by-rest",
        "dataset": {"name": "tokens", "path": str(tmp_path), "vocab_size": 5},
        "extend": True,
        "coupling": {"num_steps": 2},
        "model": {"architecture": "dit", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "cond_size": 8},
        "training": {"num_steps": 1, "batch_size": 16, "warmup_steps": 0},
        "steps": 1,
        "trials": 2,
        "num_samples": 8,
    }

    def retrain() -> Any:
        run_id = user.start("retrain", parameters)
        run = user.wait_for_state(run_id, "Completed", "Skipped", "Failed", "Crashed", timeout_s=400)
        assert run["state_type"] == "COMPLETED", run["state"]
        assert "retrain" in run["tags"]
        return run

    first, second = retrain(), retrain()
    np.save(tmp_path / "one more.npy", rows[40:])
    third = retrain()
    assert [each["state_name"] for each in (first, second, third)] == ["Completed", "Skipped", "Completed"]
    assert set(user.jobs(first["id"]).values()) == {"SUCCEEDED"}
    assert "first champion" in first["state"]["message"]
    assert "are those of version 1, the champion" in second["state"]["message"]
    assert "version 2" in third["state"]["message"].lower()
    artifacts = user.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [second["id"]]}}})
    assert any((each["key"] or "").startswith("decision-") and "Skipped" in each["data"] for each in artifacts)
    one, two = (mlflow_client.get_model_version("pairflow-by-rest", number).tags for number in ("1", "2"))
    assert one["pairflow.extends"] == ""
    assert two["pairflow.extends"] in one["pairflow.pairs_url"]
