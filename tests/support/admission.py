"""Reviews, policies and verdicts that tests of the admission webhook state instead of fetching."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from edgemodel_operator.adapters.policy_verifier import CannotVerify
from edgemodel_operator.admission.judge import Judge, Sources, Verifier
from edgemodel_operator.core.exemption import Exemption, parse_exemption
from edgemodel_operator.core.trust import AnyPolicy, Policy, PolicyVerdict, parse_policy
from edgemodel_operator.oci.reference import Reference

PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
HOST = "registry.plant-a.local:5000"
OWN_NAMESPACE = "edgemodel-system"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def pinned(name: str) -> str:
    """Name an image by digest; the same name gives the same digest."""
    return f"{HOST}/{name}@{digest_of(name)}"


def digest_of(name: str) -> str:
    """Give the digest that an image of this name has in these tests."""
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


GOOD, UNSIGNED, UNKNOWN = pinned("models/good"), pinned("models/unsigned"), pinned("models/unknown")


@dataclass
class StatedPolicies:
    """Policies and exceptions stated by a test."""

    policies: tuple[AnyPolicy, ...] = ()
    synced: bool = True
    exceptions: tuple[Exemption, ...] = ()


@dataclass
class StatedVerdicts:
    """A verifier that knows three images; it counts what it is asked and can be made to wait."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    waits: bool = False

    async def verify(
        self,
        image: Reference,
        policy: Policy,
        *,
        remember: bool = True,
        turns: asyncio.Semaphore | None = None,
    ) -> PolicyVerdict:
        """Tell about GOOD and UNSIGNED, and fail to tell about UNKNOWN; other images are unsigned."""
        self.asked.append((str(image), policy.name))
        if not remember:
            self.forgotten.append(str(image))
        if self.waits:
            await self.go_on.wait()
        if str(image) == UNKNOWN:
            raise CannotVerify("the registry is away")
        if str(image) == GOOD:
            return PolicyVerdict(policy.name, policy.spec.mode, trusted=True, by=("plant=sha256:aa",))
        return PolicyVerdict(policy.name, policy.spec.mode, False, "it is not signed", "Unsigned")


@dataclass
class StatedTags:
    """A registry with tags: what each means, one meaning for each question when there are several."""

    tags: Mapping[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    waits: bool = False

    async def digest_of(self, image: Reference) -> str:
        """Give what a test stated, or fail."""
        self.asked.append(str(image))
        if self.waits:
            await asyncio.Event().wait()
        digest = self.tags.get(f"{image.name}:{image.target}")
        if digest is None:
            raise CannotVerify("the registry is away")
        return digest


def policy(name: str = "plant", **spec: Any) -> AnyPolicy:
    """Make a policy about `models/*` in HOST."""
    authorities = [{"name": "plant", "keys": [{"data": PEM}]}]
    spec = {"images": [f"{HOST}/models/*"], "authorities": authorities} | spec
    return parse_policy({"metadata": {"name": name}, "spec": spec})


def exemption(*images: str, name: str = "for-now", namespace: str = OWN_NAMESPACE, **spec: Any) -> Exemption:
    """Make an exception that is in force at NOW."""
    values = {"namespaces": ["plant-a"], "expires": "2026-12-01T00:00:00Z", "reason": "the old gateway"}
    raw = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"images": list(images)} | values | spec,
    }
    parsed = parse_exemption(raw, namespace)
    assert parsed is not None
    return parsed


def make_judge(
    stated: StatedPolicies,
    verdicts: Verifier | None = None,
    tags: StatedTags | None = None,
    *,
    budget_seconds: float = 8.0,
    now: datetime = NOW,
) -> Judge:
    """Make a judge that asks what a test states."""
    sources = Sources(stated, stated, lambda: now)
    return Judge(sources, verdicts or StatedVerdicts(), tags or StatedTags(), budget_seconds=budget_seconds)


def pod_spec(*images: str, **more: Any) -> dict[str, Any]:
    """Make a pod spec with containers c0, c1 …"""
    return {"containers": [{"name": f"c{n}", "image": image} for n, image in enumerate(images)]} | more


def review_of(spec: Any, *, group: str = "", resource: str = "pods", **request: Any) -> dict[str, Any]:
    """Make an AdmissionReview in which kim creates an object with this spec in plant-a."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "operation": "CREATE",
            "resource": {"group": group, "version": "v1", "resource": resource},
            "namespace": "plant-a",
            "name": "line",
            "userInfo": {"username": "kim"},
            "object": {"metadata": {"name": "line"}, "spec": spec},
            **request,
        },
    }
