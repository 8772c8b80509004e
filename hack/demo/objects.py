"""The objects that a user applies in the demo."""

from __future__ import annotations

from typing import Any

from demo.models import ModelFile

Json = dict[str, Any]
API = "edgemodel.dev/v1alpha1"
NAMESPACE = "plant-a"
NAME = "line-orientation"
GOLDEN = "line-golden"
NPU = "example-npu"
BUILDER_ID = "https://edgemodel.dev/builder/v1"


def namespace(name: str = NAMESPACE) -> Json:
    """Give a namespace in which only trusted images run."""
    labels = {"edgemodel.dev/verify-images": "enforce"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def npu_class() -> Json:
    """Give the class of the plant's accelerator: a device that one pod holds at a time."""
    return {
        "apiVersion": API,
        "kind": "AcceleratorClass",
        "metadata": {"name": NPU},
        "spec": {
            "match": {"extendedResource": "example.com/npu"},
            "runtimes": [
                {"format": "ONNX", "variant": "onnxruntime-cpu", "provider": "CPUExecutionProvider"}
            ],
            "sharing": "Exclusive",
        },
    }


def trust_policy(registry: str, secret: str) -> Json:
    """Give the policy that trusts what the operator signs, and built itself."""
    return {
        "apiVersion": API,
        "kind": "TrustPolicy",
        "metadata": {"name": "models"},
        "spec": {
            "images": [f"{registry}/models/**"],
            "authorities": [{"name": "plant-a", "keys": [{"secretRef": {"name": secret}}]}],
            "attestations": [
                {
                    "name": "origin",
                    "predicateType": "https://slsa.dev/provenance/v1",
                    "checks": [
                        {
                            "expression": f"predicate.runDetails.builder.id == '{BUILDER_ID}'",
                            "message": "the operator did not build it",
                        }
                    ],
                }
            ],
        },
    }


def golden_config_map(text: str, name: str = GOLDEN, namespace: str = NAMESPACE) -> Json:
    """Give the golden sample."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"golden.json": text},
    }


def edge_model(
    model: ModelFile, url: str, registry: str, name: str = NAME, *, probation: int = 5, **rollout: Any
) -> Json:
    """Give the EdgeModel for one version of the model; `probation` in seconds.

    Only the model of the story may have the accelerator: there is one, and one pod can hold it.
    """
    ladder = [NPU, "cpu"] if name == NAME else ["cpu"]
    return {
        "apiVersion": API,
        "kind": "EdgeModel",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {
                "format": "ONNX",
                "version": model.version,
                "source": {
                    "http": {"url": f"{url}/{model.path.name}", "sha256": model.sha256, "insecure": True}
                },
            },
            "image": {"repository": f"{registry}/models/{name}"},
            "targets": [{"accelerator": target} for target in ladder],
            "placement": {"nodeSelector": {"edgemodel.dev/site": "plant-a"}},
            "health": {
                "golden": {"configMap": {"name": GOLDEN}, "tolerance": "1e-2"},
                "probationSeconds": probation,
            },
            "rollout": {"waves": [{"nodes": 1}, {"percent": 100}], **rollout},
        },
    }
