"""deploy/kubernetes: every overlay builds, fits the API's schemas, and is as closed as it says. No cluster here."""

import re
from importlib.metadata import version
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from . import manifests, programs
from .raycluster import SCHEMA

_OVERLAYS = ("laptop", "gpu")
_RELEASE = "1.32"  # the oldest that is meant; nothing here is younger than 1.29
_CONTAINER = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
_PORTS = (4200, 5000, 5432, 6379, 7070, 8265)
Objects = list[dict[str, Any]]


@pytest.fixture(scope="module", params=_OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def objects(overlay: str, tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return manifests.build(overlay, tmp_path_factory.mktemp(overlay))


def test_nothing_is_built_without_secrets() -> None:
    done = manifests.kustomize(manifests.KUBERNETES / "overlays" / "laptop")
    if list(manifests.KUBERNETES.glob("secrets/*.env")):
        pytest.skip("this working copy has secrets")
    assert done.returncode != 0
    assert "env" in done.stderr
    for example in manifests.KUBERNETES.glob("secrets/*.env.example"):
        assert re.fullmatch(r"(\w+=\n)+", example.read_text()), f"{example} gives a value"


def test_objects_fit_the_schemas(objects: Objects) -> None:
    for each in objects:
        if each["kind"] == "RayCluster":
            jsonschema.validate(each, SCHEMA)
        else:
            kubernetes_validate.validate(each, _RELEASE, strict=True)
    for name, template in manifests.pods(objects):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **template["metadata"]}}
        kubernetes_validate.validate(pod | {"spec": template["spec"]}, _RELEASE, strict=True)
        assert template["metadata"]["labels"]["app.kubernetes.io/component"], name
    assert all(each["metadata"].get("namespace", each["kind"]) in ("pairflow", "Namespace") for each in objects)


def test_schemas_refuse_what_does_not_fit(objects: Objects) -> None:
    """Else the test above would say nothing."""
    (ray,) = (each for each in objects if each["kind"] == "RayCluster")
    with pytest.raises(jsonschema.ValidationError, match="autoscaling"):
        jsonschema.validate(ray | {"spec": ray["spec"] | {"autoscaling": True}}, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(ray | {"apiVersion": "ray.io/v1alpha1"}, SCHEMA)
    service = next(each for each in objects if each["kind"] == "Service")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service | {"spec": service["spec"] | {"selectors": {}}}, _RELEASE, strict=True)


def test_the_account_of_the_autoscaler_is_its_own(objects: Objects) -> None:
    """KubeRay makes one with the cluster's name, unless there is one, and lets the one that the head names scale it."""
    (ray,) = (each for each in objects if each["kind"] == "RayCluster")
    accounts = {
        each["metadata"]["name"]: each["automountServiceAccountToken"]
        for each in objects
        if each["kind"] == "ServiceAccount"
    }
    assert ray["spec"]["enableInTreeAutoscaling"] is True
    assert accounts[ray["spec"]["headGroupSpec"]["template"]["spec"]["serviceAccountName"]] is True
    assert accounts.get(ray["metadata"]["name"]) is False


def test_one_image_everywhere(objects: Objects, overlay: str) -> None:
    """Drivers and tasks run one code: no pod keeps the name that the overlay was to replace."""
    images = {
        container["image"]
        for _, template in manifests.pods(objects)
        for container in template["spec"]["containers"]
        if container["image"].partition(":")[0].endswith("pairflow")
    }
    assert images == {f"pairflow:{version('pairflow')}-{'cuda' if overlay == 'gpu' else 'cpu'}"}


def test_pods_are_closed(objects: Objects) -> None:
    for name, template in manifests.pods(objects):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        head = name == "RayCluster/pairflow/head"  # the autoscaler there asks the Kubernetes API
        assert spec["automountServiceAccountToken"] is head
        assert spec["serviceAccountName"] == ("ray-head" if head else "pairflow")
        assert "fsGroup" not in spec["securityContext"] or "fsGroupChangePolicy" in spec["securityContext"]
        assert not any("hostPath" in each for each in spec["volumes"])
        (container,) = spec["containers"]
        assert container["securityContext"] == _CONTAINER
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+[\w.-]*", container["image"])
        assert set(container["resources"]) == {"requests", "limits"}
        assert "memory" in container["resources"]["limits"]
        if not name.startswith("Job/"):
            assert "readinessProbe" in container or "livenessProbe" in container, name


def test_commands_and_variables_exist(objects: Objects) -> None:
    for name, template in manifests.pods(objects):
        (container,) = template["spec"]["containers"]
        probes = [
            container[each]["exec"]["command"]
            for each in container
            if each.endswith("Probe") and "exec" in container[each]
        ]
        if "pairflow" in container["image"]:
            for words in [container["args"]] if "args" in container else []:
                assert programs.problems(words) == [], name
            for words in probes:
                assert programs.problems(words) == [], name
        for each in container.get("env", []):
            assert programs.unknown_variables([each["name"]]) == []
            if programs.SECRET.search(each["name"]):
                assert "secretKeyRef" in each["valueFrom"], each["name"]
    for each in objects:
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] in ("pairflow-settings", "pairflow-clients"):
            assert programs.unknown_variables(each["data"]) == []
            assert not any(programs.SECRET.search(key) for key in each["data"])
    (ray,) = (each["spec"] for each in objects if each["kind"] == "RayCluster")
    for group in (ray["headGroupSpec"], *ray["workerGroupSpecs"]):
        start = ["ray", "start", *(f"--{option}" for option in group["rayStartParams"])]
        assert programs.problems(start) == []


def test_what_is_named_is_there(objects: Objects) -> None:
    held = {(each["kind"], each["metadata"]["name"]): each for each in objects}

    def assert_key(kind: str, reference: dict[str, Any]) -> None:
        each = held[kind, reference["name"]]
        assert "key" not in reference or reference["key"] in each["data"], reference

    for name, template in manifests.pods(objects):
        spec = template["spec"]
        (container,) = spec["containers"]
        for each in container.get("envFrom", []):
            ((kind, reference),) = each.items()
            assert_key({"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], reference)
        for each in container.get("env", []):
            for kind, reference in each.get("valueFrom", {}).items():
                assert_key({"configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret"}[kind], reference)
        claims = [
            each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if "persistentVolumeClaim" in each
        ]
        assert all(("PersistentVolumeClaim", claim) in held for claim in claims), name
        if name.startswith("StatefulSet/"):
            continue  # whose claims are templates
        assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in spec["volumes"]}
    labels = [template["metadata"]["labels"] for _, template in manifests.pods(objects)]
    for (kind, name), each in held.items():
        if kind == "Service":
            chosen = [
                one
                for one in manifests.pods(objects)
                if manifests.matches({"matchLabels": each["spec"]["selector"]}, one[1]["metadata"]["labels"])
            ]
            (pod,) = chosen
            ports = {port["name"] for port in pod[1]["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports
        if kind in ("NetworkPolicy", "PodDisruptionBudget"):
            selector = each["spec"].get("podSelector") or each["spec"].get("selector")
            assert not selector or any(manifests.matches(selector, one) for one in labels), name
    (ray,) = (each["spec"] for each in objects if each["kind"] == "RayCluster")
    assert set(held["Secret", ray["authOptions"]["secretName"]]["data"]) == {"auth_token"}
    clients = held["ConfigMap", "pairflow-clients"]["data"]
    assert clients["RAY_ADDRESS"] == "http://pairflow-head-svc:8265"  # KubeRay names the service so
    assert "RAY_ADDRESS" not in held["ConfigMap", "pairflow-settings"]["data"]


def test_who_may_speak_to_whom(objects: Objects, overlay: str) -> None:
    ends = {
        template["metadata"]["labels"]["app.kubernetes.io/component"]: template["metadata"]["labels"]
        for name, template in manifests.pods(objects)
        if not name.startswith("RayCluster")
    }
    ends |= {
        name.rpartition("/")[2]: template["metadata"]["labels"]
        for name, template in manifests.pods(objects)
        if name.startswith("RayCluster")
    }
    wanted = {("worker", "prefect", 4200), ("reconciler", "prefect", 4200), ("setup", "prefect", 4200)}
    wanted |= {("worker", "mlflow", 5000)}
    wanted |= {("worker", "head", 8265), ("reconciler", "head", 8265)}
    nodes = [name for name in ("head", "cpu", "gpu") if name in ends]
    wanted |= {(node, "mlflow", 5000) for node in nodes}
    wanted |= {(one, other, port) for one in nodes for other in nodes for port in _PORTS}
    if overlay == "laptop":
        wanted |= {("prefect", "postgres", 5432), ("mlflow", "postgres", 5432)}
        wanted |= {(each, "s3", 7070) for each in (*nodes, "worker", "setup")}
    found = {
        (one, other, port)
        for one in ends
        for other in ends
        for port in _PORTS
        if manifests.may_speak(objects, ends[one], ends[other], port)
    }
    assert found == wanted
    outside = {
        (one, port)
        for one in ends
        for port in (80, 443, 5432, 6443)
        if manifests.may_speak(objects, ends[one], None, port)
    }
    store = {(each, 443) for each in (*nodes, "worker", "reconciler", "setup")}
    assert outside == store | {("prefect", 5432), ("mlflow", 5432), ("head", 6443)}


def test_ray_scales(objects: Objects, overlay: str) -> None:
    (ray,) = (each["spec"] for each in objects if each["kind"] == "RayCluster")
    assert ray["enableInTreeAutoscaling"] is True
    assert ray["authOptions"]["mode"] == "token"
    assert ray["rayVersion"] == version("ray")
    groups = {each["groupName"]: each for each in ray["workerGroupSpecs"]}
    assert set(groups) == ({"cpu", "gpu"} if overlay == "gpu" else {"cpu"})
    assert all(each["minReplicas"] <= each["replicas"] <= each["maxReplicas"] for each in groups.values())
    if overlay == "gpu":
        assert groups["gpu"]["minReplicas"] == 0
        (container,) = groups["gpu"]["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert container["image"] == "pairflow:0.1.0-cuda"
