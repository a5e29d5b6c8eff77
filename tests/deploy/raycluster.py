"""The fields of KubeRay's RayCluster that our manifests use, and no others: its published schema is not at hand.

Written from the reference of ray.io/v1 in KubeRay 1.6 and 1.7
(https://docs.ray.io/en/master/cluster/kubernetes/references/api.html). Templates are checked as pods, elsewhere.
"""

from typing import Any

_QUANTITY = {"type": "string", "pattern": r"^\d+(\.\d+)?(m|Ki|Mi|Gi)?$"}
_RESOURCES = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        side: {"type": "object", "additionalProperties": _QUANTITY, "required": ["cpu", "memory"]}
        for side in ("requests", "limits")
    },
    "required": ["requests", "limits"],
}
_START = {"type": "object", "additionalProperties": {"type": "string"}}  # a number or a bool there is refused
_TEMPLATE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"metadata": {"type": "object"}, "spec": {"type": "object"}},
    "required": ["spec"],
}
_COUNT = {"type": "integer", "minimum": 0}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayCluster"},
        "metadata": {"type": "object", "required": ["name", "namespace"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["headGroupSpec", "workerGroupSpecs", "rayVersion"],
            "properties": {
                "rayVersion": {"type": "string"},
                "enableInTreeAutoscaling": {"type": "boolean"},
                "authOptions": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"mode": {"enum": ["token", "disabled"]}, "secretName": {"type": "string"}},
                },
                "autoscalerOptions": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
                        "idleTimeoutSeconds": _COUNT,
                        "resources": _RESOURCES,
                        "securityContext": {"type": "object"},
                    },
                },
                "headGroupSpec": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["template"],
                    "properties": {
                        "serviceType": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
                        "rayStartParams": _START,
                        "template": _TEMPLATE,
                    },
                },
                "workerGroupSpecs": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["groupName", "minReplicas", "maxReplicas", "template"],
                        "properties": {
                            "groupName": {"type": "string"},
                            "replicas": _COUNT,
                            "minReplicas": _COUNT,
                            "maxReplicas": _COUNT,
                            "rayStartParams": _START,
                            "template": _TEMPLATE,
                        },
                    },
                },
            },
        },
    },
}
