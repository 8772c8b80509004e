"""The name of a demand: whatever could change a verdict changes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.signing import demand as demand_module
from edgemodel_operator.signing.demand import Authority, Demand, PredicateCheck, WantedAttestation
from edgemodel_operator.signing.keys import LocalKey

KEY, OTHER = (LocalKey(ec.generate_private_key(ec.SECP256R1())).public_key for _ in range(2))


@dataclass(frozen=True)
class Known:
    """An identity that is no more than its name."""

    name: str

    def verifies(self, bundle: bytes) -> bool:
        return bool(bundle)


CHECK = PredicateCheck("predicate.ok", "it is not ok")
ATTESTATION = WantedAttestation("origin", "https://slsa.dev/provenance/v1", frozenset({"plant"}), (CHECK,))
DEMAND = Demand(
    (Authority("plant", (KEY,)), Authority("ci", (), (Known("ci under root 1"),))),
    attestations=(ATTESTATION,),
)


@pytest.mark.parametrize(
    "other",
    [
        replace(DEMAND, threshold=2),
        replace(DEMAND, required=frozenset({"plant"})),
        replace(DEMAND, any_repository=True),
        replace(DEMAND, platforms_signed=True),
        replace(DEMAND, attestations=()),
        replace(DEMAND, attestations=(replace(ATTESTATION, authorities=frozenset()),)),
        replace(DEMAND, attestations=(replace(ATTESTATION, checks=()),)),
        replace(DEMAND, attestations=(replace(ATTESTATION, checks=(replace(CHECK, expression="true"),)),)),
        replace(DEMAND, attestations=(replace(ATTESTATION, predicate_type="https://spdx.dev/Document"),)),
        replace(DEMAND, authorities=DEMAND.authorities[:1]),
        replace(DEMAND, authorities=(Authority("plant", (OTHER,)), DEMAND.authorities[1])),
        replace(DEMAND, authorities=(Authority("plant", (KEY, OTHER)), DEMAND.authorities[1])),
        replace(
            DEMAND, authorities=(DEMAND.authorities[0], Authority("ci", (), (Known("ci under root 2"),)))
        ),
        replace(DEMAND, authorities=(Authority("other", (KEY,)), DEMAND.authorities[1])),
    ],
)
def test_whatever_decides_changes_the_fingerprint(other: Demand) -> None:
    assert other.fingerprint != DEMAND.fingerprint


def test_equal_demands_have_equal_fingerprints_until_the_procedure_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert replace(DEMAND).fingerprint == DEMAND.fingerprint
    monkeypatch.setattr(demand_module, "PROCEDURE", demand_module.PROCEDURE + 1)
    assert replace(DEMAND).fingerprint != DEMAND.fingerprint
