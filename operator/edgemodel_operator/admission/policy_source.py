"""What the parts that decide ask about policies, whoever keeps them fresh."""

from __future__ import annotations

from typing import Protocol

from edgemodel_operator.core.exemption import Exemption
from edgemodel_operator.core.trust import AnyPolicy


class PolicySource(Protocol):
    """Where the policies come from."""

    @property
    def synced(self) -> bool:
        """Whether all of them were read."""
        ...

    @property
    def policies(self) -> tuple[AnyPolicy, ...]:
        """All of them."""
        ...


class ExceptionSource(Protocol):
    """Where the exceptions come from: those of the operator's namespace, and no others."""

    @property
    def exceptions(self) -> tuple[Exemption, ...]:
        """All that were understood, also those past their end."""
        ...
