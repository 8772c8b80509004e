"""TrustPolicyStatus: what the audit of running containers found."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgemodel_operator.api.base import Observed, list_map
from edgemodel_operator.api.conditions import Condition

MAX_FINDINGS = 50
"""More than these are counted but not listed: a status must stay small."""

Name = Annotated[str, Field(max_length=253)]


class UntrustedUse(Observed):
    """One image that runs in a pod although the policy does not hold for it."""

    namespace: Name
    """The namespace of the pod."""
    pod: Name
    """The pod."""
    container: Name
    """Where the pod uses the image: `containers[main]`, `volumes[data].image` …"""
    node: Name = ""
    """The node; empty: not placed yet."""
    image: Annotated[str, Field(max_length=512)]
    """The image as the pod names it."""
    running: Annotated[str, Field(max_length=512)] = ""
    """What runs, as the node reports it: a digest in a registry, or an identifier on that node alone."""
    reason: Name
    """A CamelCase word: `Unsigned`, `UnknownKey`, `NoDigest`, `StaticPod`, `NotFromRegistry` …"""
    message: Annotated[str, Field(max_length=512)] = ""
    """A sentence for people."""
    since: Name = ""
    """When the audit first saw it (RFC 3339)."""


class TrustPolicyStatus(Observed):
    """The result of the last audit."""

    observed_generation: int = 0
    """The generation of the spec that was applied."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=8, json_schema_extra=list_map("type"))] = ()
    """`Ready`: the policy is understood and its keys can be read. `Satisfied`: nothing runs against it."""
    checked: int = 0
    """Images in use that the policy speaks about."""
    untrusted: int = 0
    """Uses of images for which it does not hold."""
    findings: Annotated[tuple[UntrustedUse, ...], Field(max_length=MAX_FINDINGS)] = ()
    """Those uses, the first of them."""
    audited_at: Name = ""
    """When the audit last changed or confirmed this (RFC 3339)."""
