"""Changes of the TrustPolicies and TrustExceptions themselves: what is refused at apply, and who did what.

The API server checks the schema, but keeps what it does not name. Here is checked what a schema cannot say:
unknown fields, keys that are none, expressions and patterns that do not compile, exceptions that could not
count. A deletion is never refused, and an update that leaves the content alone neither: a finalizer must be
able to go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from edgemodel_operator.admission.review import (
    InvalidReview,
    mapping_in,
    request_uid,
    require_review,
    text_in,
)
from edgemodel_operator.api.base import NotUnderstood, read_spec
from edgemodel_operator.api.names import GROUP
from edgemodel_operator.api.trustexception import MAX_EXCEPTION_DAYS, TrustExceptionSpec
from edgemodel_operator.api.trustpolicy import TrustPolicySpec
from edgemodel_operator.core.trust import BrokenPolicy, parse_policy

KINDS = {"trustpolicies": "TrustPolicy", "trustexceptions": "TrustException"}
_NO_CONTENT = frozenset({"apiVersion", "kind", "metadata", "status"})
MAX_CHANGES = 32
MAX_VALUE = 200

CheckPolicy: TypeAlias = Callable[[TrustPolicySpec], tuple[str, ...]]
"""Gives a sentence for each key, expression and pattern of a policy that cannot be used."""


@dataclass(frozen=True)
class Change:
    """What somebody wants to do to a policy or an exception.

    `content` is what the user wrote: the spec, and whatever else stands where it should not. `changes` says
    how: one line for each field that differs, like `mode: "Enforce" → "Audit"`.
    """

    uid: str
    operation: str
    kind: str
    namespace: str
    name: str
    user: str
    dry_run: bool
    content: Mapping[str, Any]
    content_unchanged: bool
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
    content, before = _content(new), _content(old)
    return Change(
        uid=request_uid(document),
        operation=operation,
        kind=KINDS[plural],
        namespace=text_in(request, "namespace", default=""),
        name=text_in(request, "name", default="") or str(metadata.get("name", "")),
        user=text_in(mapping_in(request, "userInfo"), "username", default=""),
        dry_run=request.get("dryRun") is True,
        content=content,
        content_unchanged=operation == "UPDATE" and content == before,
        changes=tuple(_differences(old.get("spec"), new.get("spec"))[:MAX_CHANGES]),
        object_uid=str(metadata.get("uid", "")),
    )


def _content(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out what is written by others than the user, or says nothing."""
    return {name: value for name, value in document.items() if name not in _NO_CONTENT}


def check_change(change: Change, namespace: str, check_policy: CheckPolicy, now: datetime) -> tuple[str, ...]:
    """Give a sentence for everything that speaks against a change; `namespace` is the operator's own."""
    if change.operation == "DELETE" or change.content_unchanged:
        return ()
    if change.kind == "TrustPolicy":
        return _check_policy(change, check_policy)
    return _check_exception(change, namespace, now)


def _check_policy(change: Change, check_policy: CheckPolicy) -> tuple[str, ...]:
    policy = parse_policy({"metadata": {"name": change.name}, **change.content})
    if isinstance(policy, BrokenPolicy):
        return (f"the policy cannot be understood: {policy.problem}",)
    return check_policy(policy.spec)


def _check_exception(change: Change, namespace: str, now: datetime) -> tuple[str, ...]:
    if change.namespace != namespace:
        where = f"in {change.namespace or 'no namespace'} it would do nothing"
        return (f"exceptions count only in namespace {namespace}, {where}: write -n {namespace}",)
    try:
        spec = read_spec(TrustExceptionSpec, change.content)
    except NotUnderstood as error:
        return (f"the exception cannot be understood: {error}",)
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
