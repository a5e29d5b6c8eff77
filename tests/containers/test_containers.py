"""deploy/Dockerfile and deploy/compose.yaml for real: what a team does in its first week, servers dying meanwhile.

The tests tell one story, in their order. Whatever a server logs as an error is a failure.
"""

import re
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from flows.service import server_logs

from .engine import Engine
from .images import Images
from .service import Service

pytestmark = [pytest.mark.story, pytest.mark.timeout(1800)]

_MOST_BYTES = 1.9e9
_SERVERS = {"prefect": "prefect", "mlflow": "mlflow", "ray-head": "ray", "ray-worker": "ray", "worker": "worker"}
"""Service -> the program whose log it writes."""
_DIGITS = {"dataset": {"name": "digits"}, "coupling": {"num_steps": 20, "seed": 1}}
_TINY = {
    "dataset": {"name": "nci", "max_rows": 150},
    "coupling": {"num_steps": 5},
    "model": {"architecture": "dit", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "cond_size": 16},
    "training": {"num_steps": 200, "batch_size": 16},
    "evaluation": {"steps": [1, 2], "num_samples": 8, "num_trials": 2},
}
# Every module of ours but those for GPUs; and what is imported late, when a page or an export is asked for.
_IMPORTS = """
import importlib, pkgutil
import pairflow, storage, flows
names = [each.name for package in (pairflow, storage, flows)
         for each in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
names += ["mlflow.pyfunc", "mlflow.server", "mlflow.pytorch", "ray.data", "ray.dashboard.dashboard", "ray.autoscaler",
          "prefect.server.api.server", "prefect.workers.process", "torch.distributed", "torch.export", "torch._dynamo",
          "s3fs", "psycopg", "asyncpg", "sklearn.datasets", "scipy.optimize", "rdkit.Chem.Draw", "matplotlib.pyplot",
          "pyarrow.parquet", "pyarrow.dataset", "zarr", "numcodecs.blosc", "safetensors.torch"]
for name in names:
    if not name.endswith("__main__") and "triton" not in name:
        importlib.import_module(name)
print(len(names))
"""


def _artifacts(service: Service, flow_run_id: str) -> dict[str, Any]:
    """What a run's page shows, by the first word of its key."""
    found = service.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}})
    return {(each["key"] or each["type"]).partition("-")[0]: each for each in found}


def _histories(service: Service) -> tuple[dict[str, str], set[str]]:
    """Of Prefect: runs and how they ended; of MLflow: finished runs."""
    experiments = [each["experiment_id"] for each in service.search_mlflow("experiments", {"max_results": 100})]
    runs = service.search_mlflow("runs", {"experiment_ids": experiments, "max_results": 1000})
    return (
        {each["id"]: each["state_name"] for each in service.ask("flow_runs/filter", {})},
        {each["info"]["run_id"] for each in runs if each["info"]["status"] == "FINISHED"},
    )


def test_the_image_is_no_larger_than_it_must_be(containers: Engine, images: Images) -> None:
    (image,) = containers.inspect(images.ours)
    print(f"image: {image['Size'] / 1e9:.2f} GB")
    assert image["Size"] <= _MOST_BYTES


def test_everything_in_it_can_be_imported(containers: Engine, images: Images) -> None:
    closed = ["--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none", "--cap-drop", "ALL"]  # noqa: S108
    assert (
        int(containers.docker("run", *closed, images.ours, "python", "-W", "ignore", "-c", _IMPORTS).split()[-1]) > 150
    )


def test_all_of_it_becomes_healthy(service: Service) -> None:
    assert service.not_ready() == {}


def test_nothing_listens_beyond_loopback(service: Service) -> None:
    states = service.states()
    published = {
        (address["HostIp"], int(address["HostPort"]))
        for each in states.values()
        for addresses in each["NetworkSettings"]["Ports"].values()
        for address in addresses or []
    }
    assert published == {("127.0.0.1", port) for port in service.ports}
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if line.split()[3] == "0A" and int(port, 16) in service.ports:  # 0A: listens
                listening.add((address, int(port, 16)))
    assert listening == {("0100007F", port) for port in service.ports}


def test_containers_are_as_closed_as_the_file_says(service: Service) -> None:
    for name, each in service.states().items():
        if each["State"]["Status"] != "running":
            continue
        lines = service.execute(name, "cat", "/proc/1/status", "/proc/mounts").splitlines()
        status = dict(line.split(":\t") for line in lines if ":\t" in line)
        assert int(status["Uid"].split()[0]) > 0, name
        assert {status[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd")} == {"0" * 16}, name
        assert status["NoNewPrivs"] == "1", name
        (root,) = [line.split()[3] for line in lines if re.match(r"\S+ / ", line)]
        assert "ro" in root.split(","), name
        assert not each["HostConfig"]["Privileged"]


def test_the_pages_open_for_who_may(service: Service) -> None:
    for url in (service.prefect, service.mlflow, service.ray):
        page = service.get(f"{url}/")
        scripts = re.findall(r'src="([^"]+\.js)"', page)
        assert scripts, url
        assert all(len(service.get(f"{url}/{each.removeprefix('./').lstrip('/')}")) > 1000 for each in scripts)
    for url in (f"{service.prefect}/api/flow_runs/count", f"{service.ray}/api/jobs/"):
        with pytest.raises(requests.HTTPError) as refused:
            service.get(url, body={} if "count" in url else None)
        assert refused.value.response.status_code in (401, 403)


def test_pairs_are_made_though_rays_worker_is_killed(service: Service) -> None:
    run_id = service.start("pair", _DIGITS)
    assert service.wait_for_state(run_id, "Completed", "Failed", "Crashed") == "Completed", service.told(run_id)
    service.wait_for(lambda: "shards to make" in service.told(run_id))
    slow = _DIGITS | {"coupling": {"num_steps": 3000, "seed": 2}, "shard_size": 40}
    run_id = service.start("pair", slow)
    service.wait_for(
        lambda: _artifacts(service, run_id).get("progress", {}).get("data", 0) > 5, or_say=lambda: service.told(run_id)
    )
    service.kill("ray-worker")
    assert service.state(run_id) == "Running"
    assert service.wait_for_state(run_id, "Completed", "Failed", "Crashed") == "Completed", service.told(run_id)
    assert service.jobs(run_id) == ["SUCCEEDED"]


def test_a_pipeline_ends_well_though_its_worker_is_killed(service: Service) -> None:
    run_id = service.start("pipeline", _TINY)
    service.wait_for(lambda: "train nci" in str(_stages(service)), or_say=lambda: service.told(run_id))
    service.kill("worker")
    service.wait_for_state(run_id, "Crashed")
    service.wait_for(lambda: not {"Running", "Pending"} & set(_stages(service).values()))
    time.sleep(10)  # Prefect reports a crash twice, and the second report would undo an earlier retry
    service.retry(run_id)
    assert service.wait_for_state(run_id, "Completed", "Failed", "Crashed") == "Completed", service.told(run_id)
    artifacts = _artifacts(service, run_id)
    assert {"scores", "pictures", "summary"} <= set(artifacts)
    assert f"({service.mlflow}/#/experiments/" in artifacts["summary"]["data"]
    assert "http://mlflow" not in service.told(run_id)  # no browser finds it


def _stages(service: Service) -> dict[str, str]:
    found = service.ask("flow_runs/filter", {"flow_runs": {"name": {"like_": "nci"}}})
    return {each["name"]: each["state_name"] for each in found}


def test_the_histories_are_there_after_down_and_up(service: Service) -> None:
    before = _histories(service)
    assert all(before)
    _assert_no_trouble(service)  # whose logs go with the containers
    service.compose("down")
    assert service.states() == {}
    print(f"up again: {service.up():.0f} s until all is healthy")
    after = _histories(service)
    assert before[0].items() <= after[0].items()
    assert before[1] == after[1]
    run_id = service.start("pair", _DIGITS)
    assert service.wait_for_state(run_id, "Completed", "Failed", "Crashed") == "Completed", service.told(run_id)
    assert "shards to make" not in service.told(run_id)  # they are found in the store


def test_no_server_wrote_of_trouble_or_of_a_secret(service: Service) -> None:
    _assert_no_trouble(service)


def _assert_no_trouble(service: Service) -> None:
    for name in service.names:
        lines = service.log(name)
        assert not [line for line in lines if any(secret in line for secret in service.secrets)], name
        if name in _SERVERS:
            found = [each for each in server_logs.records(lines) if server_logs.is_trouble(_SERVERS[name], each)]
            assert found == [], name
