"""The rights of a pod that runs `buildah`: what it cannot do without, and nothing else. Pure.

Format: PodSpec and SecurityContext of Kubernetes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

ORDINARY_USER = 65532
_NEEDED_BY_ROOT = ["SETFCAP", "SETGID", "SETUID"]
"""To name the users of the pod in the namespace of the build, that of root among them."""


@dataclass(frozen=True)
class PodRights:
    """The parts of a pod that say what it may do."""

    pod: Json
    """Fields of the PodSpec."""
    container: Json
    """The SecurityContext of the container."""


def pod_rights(*, user_namespaces: bool) -> PodRights:
    """Give the rights of a build pod.

    Without `user_namespaces` it is an ordinary user without any capability; with it, root of a user
    namespace that the kubelet makes, whom the node knows as nobody. In both cases two filters of the runtime
    have to go, since they forbid a process to make a namespace and to mount within it: seccomp and AppArmor.
    """
    user = 0 if user_namespaces else ORDINARY_USER
    capabilities: Json = {"drop": ["ALL"], **({"add": _NEEDED_BY_ROOT} if user_namespaces else {})}
    return PodRights(
        pod={
            **({"hostUsers": False} if user_namespaces else {}),
            "securityContext": {
                "runAsNonRoot": not user_namespaces,
                "runAsUser": user,
                "runAsGroup": user,
                "fsGroup": user,
                "seccompProfile": {"type": "Unconfined"},
            },
        },
        container={
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": capabilities,
            "appArmorProfile": {"type": "Unconfined"},
        },
    )
