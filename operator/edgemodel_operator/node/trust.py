"""The policies and exceptions on this node: from the API server, or as they were when it answered last."""

from __future__ import annotations

from collections.abc import Callable

from edgemodel_operator.adapters.kube import KubeApi
from edgemodel_operator.adapters.watched import Watched
from edgemodel_operator.api.names import GROUP, VERSION
from edgemodel_operator.core.exemption import Exemption, parse_exemption
from edgemodel_operator.core.trust import AnyPolicy, parse_policy
from edgemodel_operator.node.record import Record

POLICIES_PATH = f"/apis/{GROUP}/{VERSION}/trustpolicies"


def exceptions_path(namespace: str) -> str:
    """Give the collection of the exceptions that count."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/trustexceptions"


class NodeTrust:
    """What is trusted now. Until the API server has answered once, an earlier record stands in for it."""

    def __init__(
        self,
        api: KubeApi,
        namespace: str,
        record: Record,
        *,
        earlier: bool,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """`earlier`: `record` is from an earlier start, and so says something about the policies."""
        self._namespace = namespace
        self._record = record
        self._known = earlier
        self.changes = 0
        self._policies = Watched(api, POLICIES_PATH, changed=self._update, failed=failed)
        self._exceptions = Watched(api, exceptions_path(namespace), changed=self._update, failed=failed)
        self._parse()

    @property
    def watches(self) -> tuple[Watched, Watched]:
        """What has to run."""
        return self._policies, self._exceptions

    @property
    def policies(self) -> tuple[AnyPolicy, ...] | None:
        """All policies; None before any are known."""
        return self._parsed_policies if self._known else None

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """All exceptions that count."""
        return self._parsed_exemptions

    def _update(self) -> None:
        """Take over what was read, each kind as soon as it was."""
        if self._policies.synced:
            self._record.policies = tuple(self._policies.objects.values())
            self._known = True
        if self._exceptions.synced:
            self._record.exceptions = tuple(self._exceptions.objects.values())
        self._parse()
        self.changes += 1

    def _parse(self) -> None:
        self._parsed_policies = tuple(parse_policy(raw) for raw in self._record.policies)
        found = (parse_exemption(raw, self._namespace) for raw in self._record.exceptions)
        self._parsed_exemptions = tuple(one for one in found if one is not None)
