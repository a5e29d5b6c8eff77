"""The objects of an overlay, as kustomize builds them with secrets of a test."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"


def build(overlay: str, folder: Path) -> list[dict[str, Any]]:
    """What `kubectl apply --kustomize` would send."""
    copy = folder / "kubernetes"
    shutil.copytree(KUBERNETES, copy, ignore=shutil.ignore_patterns("*.env"))
    for example in copy.glob("secrets/*.env.example"):
        example.with_suffix("").write_text(example.read_text().replace("=\n", "=a-secret-of-the-test\n"))
    done = kustomize(copy / "overlays" / overlay)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def kustomize(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Builds a folder, without any cluster."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl, whose kustomize builds the overlays")
    return subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=120, check=False)


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pod templates of all workloads, by a name of their own."""
    for each in objects:
        name = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, each["spec"]["template"]
        elif each["kind"] == "RayCluster":
            yield f"{name}/head", each["spec"]["headGroupSpec"]["template"]
            for group in each["spec"]["workerGroupSpecs"]:
                yield f"{name}/{group['groupName']}", group["template"]


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector chooses an object with these labels."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        {"In": labels.get(each["key"]) in each.get("values", []), "Exists": each["key"] in labels}[each["operator"]]
        for each in selector.get("matchExpressions", [])
    )


def may_speak(objects: list[dict[str, Any]], source: dict[str, str], target: dict[str, str] | None, port: int) -> bool:
    """Whether the network policies let pods of these labels connect; a target of None is outside the cluster."""
    policies = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]

    def lets(direction: str, side: str, mine: dict[str, str], other: dict[str, str] | None) -> bool:
        chosen = [each for each in policies if direction in each["policyTypes"] and matches(each["podSelector"], mine)]
        return not chosen or any(
            any(each["port"] == port and each["protocol"] == "TCP" for each in rule.get("ports", []))
            or not rule.get("ports")
            for each in chosen
            for rule in each.get(direction.lower(), [])
            if not rule.get(side)
            or (
                other is not None
                and any(
                    "namespaceSelector" not in peer and matches(peer.get("podSelector", {}), other)
                    for peer in rule[side]
                )
            )
        )

    return lets("Egress", "to", source, target) and (target is None or lets("Ingress", "from", target, source))
