"""Bad parameters through Prefect's API: refused by its server, or by the run before anything reaches Ray."""

import json
import urllib.error
from typing import Any

import pytest

from .user import User


def _nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"dataset": value}
    return value


# (deployment, parameters, the field that the refusal names)
_REFUSED_BY_SERVER: list[tuple[str, Any, str]] = [
    ("pair", None, "parameters"),
    ("pair", [], "parameters"),
    ("pair", "digits", "parameters"),
    ("pair", 7, "parameters"),
    ("pair", {"nosuch": 1}, "nosuch"),
    ("pair", {"dataset": None}, "parameters.dataset"),
    ("pair", {"dataset": "digits"}, "parameters.dataset"),
    ("pair", {"dataset": _nested(50)}, "parameters.dataset"),
    ("pair", {"dataset": {"name": "nosuch"}}, "dataset.name"),
    ("pair", {"dataset": {"name": "../../etc/passwd"}}, "dataset.name"),
    ("pair", {"dataset": {"name": "digits\x00"}}, "dataset.name"),
    ("pair", {"dataset": {"name": ["digits"]}}, "dataset.name"),
    ("pair", {"dataset": {"name": {"$ref": "#"}}}, "dataset.name"),
    ("pair", {"dataset": {"name": "digits", "max_rows": 0}}, "dataset.max_rows"),
    ("pair", {"dataset": {"name": "digits", "max_rows": 1.5}}, "dataset.max_rows"),
    ("pair", {"dataset": {"name": "digits", "max_rows": "many"}}, "dataset.max_rows"),
    ("pair", {"dataset": {"name": "digits", "holdout": 1}}, "dataset.holdout"),
    ("pair", {"dataset": {"name": "digits", "holdout": "0.5; rm -rf /"}}, "dataset.holdout"),
    ("pair", {"dataset": {"name": "digits", "split_seed": -1}}, "dataset.split_seed"),
    ("pair", {"dataset": {"name": "digits", "split_seed": 10**400}}, "dataset.split_seed"),
    ("pair", {"dataset": {"name": "digits", "__class__": "os.system"}}, "__class__"),
    ("pair", {"coupling": {"kind": "magic"}}, "coupling.kind"),
    ("pair", {"coupling": {"num_steps": 0}}, "coupling.num_steps"),
    ("pair", {"coupling": {"num_steps": 10**30}}, "coupling.num_steps"),
    ("pair", {"coupling": {"num_steps": "20"}}, "coupling.num_steps"),
    ("pair", {"coupling": {"temperature": 0}}, "coupling.temperature"),
    ("pair", {"coupling": {"epsilon": -1e-9}}, "coupling.epsilon"),
    ("pair", {"coupling": {"sources_per_target": 4097}}, "coupling.sources_per_target"),
    ("pair", {"format": "zarr; ls"}, "parameters.format"),
    ("pair", {"shard_size": 0}, "parameters.shard_size"),
    ("pair", {"shard_size": {}}, "parameters.shard_size"),
    ("pair", {"num_workers": 0}, "parameters.num_workers"),
    ("pair", {"engine": "tpu"}, "parameters.engine"),
    ("pair", {"store": ["s3://bucket"]}, "parameters.store"),
    ("pair", {"expected_fingerprint": "0" * 64}, "expected_fingerprint"),
    ("pair", {"num_workers": 2**63}, "parameters.num_workers"),
    ("train", {"training": {"num_steps": 10**400}}, "training.num_steps"),
    ("evaluate", {"evaluation": {"steps": [1, 2**64]}}, "evaluation.steps"),
    ("train", {"preset": "huge"}, "parameters.preset"),
    ("train", {"training": {"num_steps": -5}}, "training.num_steps"),
    ("train", {"model": {"hidden_size": 4}}, "model.hidden_size"),
    ("evaluate", {"methods": ["neither"]}, "parameters.methods"),
    ("pipeline", {"model": {"architecture": "dit\n"}}, "model.architecture"),
    ("pipeline", {"evaluation": {"nosuch": 1}}, "nosuch"),
    ("evaluate", {"models": [""]}, "parameters.models"),
    ("retrain", {"name": "../x"}, "parameters.name"),
    ("retrain", {"name": "Digits"}, "parameters.name"),
    ("retrain", {"name": "x" * 65}, "parameters.name"),
    ("retrain", {"method": "neither"}, "parameters.method"),
    ("retrain", {"steps": 0}, "parameters.steps"),
    ("retrain", {"trials": 1}, "parameters.trials"),
    ("retrain", {"margin": -0.1}, "parameters.margin"),
    ("retrain", {"confidence": 1}, "parameters.confidence"),
    ("retrain", {"evaluation": {"steps": [4]}}, "evaluation"),
]
# What the server lets through, because it looks at one field at a time, or was told to look at none.
_UNCHECKED = {"enforce_parameter_schema": False}
_REFUSED_BY_RUN: list[tuple[str, dict[str, Any], str]] = [
    ("pair", {"parameters": {"parameters": {"dataset": {"name": "tokens"}}}, **_UNCHECKED}, "needs a path"),
    ("pair", {"parameters": {"parameters": {"store": "nosuchscheme://here"}}}, "nosuchscheme"),
    ("pair", {"parameters": {"parameters": {}, "nosuch": 1}}, "one object, `parameters`"),
    ("pair", {"parameters": {"parameters": {"shard_size": 0}}, **_UNCHECKED}, "shard_size"),
    ("pair", {"parameters": {"parameters": {"../x": 1}}, **_UNCHECKED}, "Extra inputs"),
    ("pair", {"parameters": {"parameters": {"dataset": _nested(50)}}, **_UNCHECKED}, "Extra inputs"),
    ("pair", {"parameters": {"parameters": {"expected_fingerprint": 7}}, **_UNCHECKED}, "valid string"),
    (
        "train",
        {"parameters": {"parameters": {"model": {"architecture": "dit", "hidden_size": 20, "num_heads": 3}}}},
        "multiple of",
    ),
    # Prefect takes null for "not given" where a field has no default.
    ("pair", {"parameters": {"parameters": {"coupling": {"temperature": None}}}}, "temperature"),
    ("evaluate", {"parameters": {"parameters": {"methods": []}}, **_UNCHECKED}, "nothing to evaluate"),
    (
        "retrain",
        {"parameters": {"parameters": {"dataset": {"name": "nci"}, "preset": "paper"}}, **_UNCHECKED},
        "no settings",
    ),
    ("retrain", {"parameters": {"parameters": {"name": "../x"}}, **_UNCHECKED}, "name: String should match"),
    ("pipeline", {"parameters": {"parameters": {"evaluation": {"num_samples": -1}}}, **_UNCHECKED}, "num_samples"),
]


@pytest.mark.parametrize(("name", "parameters", "names"), _REFUSED_BY_SERVER)
def test_refused_by_the_server(user: User, name: str, parameters: Any, names: str) -> None:
    before = user.ask("flow_runs/count", {})
    with pytest.raises(urllib.error.HTTPError) as refusal:
        user.start(name, parameters)
    with refusal.value as answer:
        assert answer.code == 409
        assert names in json.load(answer)["detail"]
    assert user.ask("flow_runs/count", {}) == before


def test_refused_by_the_run(user: User) -> None:
    jobs = user.jobs()
    runs = [
        str(user.ask(f"deployments/{user.deployment(name)['id']}/create_flow_run", body)["id"])
        for name, body, _ in _REFUSED_BY_RUN
    ]
    for run, (_, body, says) in zip(runs, _REFUSED_BY_RUN, strict=True):
        state = user.wait_for_state(run, "Failed")["state"]
        assert says in state["message"], body
    assert user.jobs() == jobs
