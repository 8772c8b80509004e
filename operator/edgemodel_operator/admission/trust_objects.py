"""Changes of the TrustPolicies and TrustExceptions themselves: what is refused at apply, and who did what.

The API server checks the schema. Here is checked what a schema cannot say: keys that are none, expressions
and patterns that do not compile, exceptions that could not count. A deletion is never refused, and an update
that leaves the spec alone neither: a finalizer must be able to go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from pydantic import ValidationError

from edgemodel_operator.admission.review import (
    InvalidReview,
    mapping_in,
    request_uid,
    require_review,
    text_in,
)
from edgemodel_operator.api.names import GROUP
from edgemodel_operator.api.trustexception import MAX_EXCEPTION_DAYS, TrustExceptionSpec
from edgemodel_operator.api.trustpolicy import TrustPolicySpec
from edgemodel_operator.core.trust import BrokenPolicy, parse_policy

KINDS = {"trustpolicies": "TrustPolicy", "trustexceptions": "TrustException"}
MAX_CHANGES = 32
MAX_VALUE = 200

CheckPolicy: TypeAlias = Callable[[TrustPolicySpec], tuple[str, ...]]
"""Gives a sentence for each key, expression and pattern of a policy that cannot be used."""


@dataclass(frozen=True)
class Change:
    """What somebody wants to do to a policy or an exception.

    `changes` says how: one line for each field that differs, like `mode: "Enforce" → "Audit"`.
    """

    uid: str
    operation: str
    kind: str
    namespace: str
    name: str
    user: str
    dry_run: bool
    spec: Any
    spec_unchanged: bool
    changes: tuple[str, ...]
    object_uid: str = field(default="", compare=False)

    @property
    def subject(self) -> str:
        """Name the object for messages and logs."""
        return f"{self.kind} {f'{self.namespace}/' if self.namespace else ''}{self.name}"


def parse_change(document: object) -> Change:
    """Read an AdmissionReview about a TrustPolicy or a TrustException. Raises InvalidReview."""
    request = require_review(document)
    resource = mapping_in(request, "resource")
    plural = text_in(resource, "resource")
    if text_in(resource, "group", default="") != GROUP or plural not in KINDS:
        raise InvalidReview(f"This webhook does not judge {plural[:64]} here.")
    operation = text_in(request, "operation")
    if operation not in {"CREATE", "UPDATE", "DELETE"}:
        raise InvalidReview(f"This webhook judges CREATE, UPDATE and DELETE, not {operation[:32]}.")
    new = mapping_in(request, "object") if operation != "DELETE" else {}
    old = mapping_in(request, "oldObject") if operation != "CREATE" else {}
    metadata = mapping_in(new or old, "metadata")
    return Change(
        uid=request_uid(document),
        operation=operation,
        kind=KINDS[plural],
        namespace=text_in(request, "namespace", default=""),
        name=text_in(request, "name", default="") or str(metadata.get("name", "")),
        user=text_in(mapping_in(request, "userInfo"), "username", default=""),
        dry_run=request.get("dryRun") is True,
        spec=new.get("spec"),
        spec_unchanged=operation == "UPDATE" and new.get("spec") == old.get("spec"),
        changes=tuple(_differences(old.get("spec"), new.get("spec"))[:MAX_CHANGES]),
        object_uid=str(metadata.get("uid", "")),
    )


def check_change(change: Change, namespace: str, check_policy: CheckPolicy, now: datetime) -> tuple[str, ...]:
    """Give a sentence for everything that speaks against a change; `namespace` is the operator's own."""
    if change.operation == "DELETE" or change.spec_unchanged:
        return ()
    if change.kind == "TrustPolicy":
        return _check_policy(change, check_policy)
    return _check_exception(change, namespace, now)


def _check_policy(change: Change, check_policy: CheckPolicy) -> tuple[str, ...]:
    policy = parse_policy({"metadata": {"name": change.name}, "spec": change.spec})
    if isinstance(policy, BrokenPolicy):
        return (f"the policy cannot be understood: {policy.problem}",)
    return check_policy(policy.spec)


def _check_exception(change: Change, namespace: str, now: datetime) -> tuple[str, ...]:
    if change.namespace != namespace:
        where = f"in {change.namespace or 'no namespace'} it would do nothing"
        return (f"exceptions count only in namespace {namespace}, {where}: write -n {namespace}",)
    try:
        spec = TrustExceptionSpec.model_validate(change.spec)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(("spec", *(str(part) for part in first["loc"])))
        return (f"the exception cannot be understood: {where}: {first['msg']}",)
    latest = now + timedelta(days=MAX_EXCEPTION_DAYS)
    if spec.end <= now:
        return (f"it is over already: spec.expires is {spec.expires}, and now is {_text(now)}",)
    if spec.end > latest:
        limit = f"write {_text(latest)} or earlier; what has to last longer is a policy"
        return (f"spec.expires is more than {MAX_EXCEPTION_DAYS} days ahead: {limit}",)
    return ()


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Describe how two documents differ, field by field."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for name in sorted({*old, *new})
            for line in _differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
        ]
    if old == new:
        return []
    return [f"{path or 'spec'}: {_short(old)} → {_short(new)}"]


def _short(value: Any) -> str:
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"
