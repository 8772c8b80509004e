"""Keys and trusted roots of policies, read from a Kubernetes API and kept for a while."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.adapters.authorities import KEEP_KEY_S, KEEP_PROBLEM_S, AuthorityStore
from edgemodel_operator.core.trust import Policy, parse_policy
from edgemodel_operator.signing.bundle import make_statement
from edgemodel_operator.signing.keys import LocalKey
from support.kube_api import KubeApiServer, kube_api_server
from support.sigstore_site import ISSUER, Site

NAMESPACE = "edgemodel-system"
SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/plant-key"
ROOT = f"/api/v1/namespaces/{NAMESPACE}/configmaps/sigstore"
INLINE, FIRST, SECOND = (LocalKey(ec.generate_private_key(ec.SECP256R1())).public_key for _ in range(3))


@dataclass
class Place:
    """An API, a store that reads from it, and the store's clock."""

    server: KubeApiServer
    store: AuthorityStore = field(init=False)
    now: float = 1000.0

    async def put_key(self, pem: bytes) -> None:
        await self.server.put(SECRET, {"data": {"cosign.pub": base64.b64encode(pem).decode()}})


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with kube_api_server() as (server, api):
        made = Place(server)
        made.store = AuthorityStore(api, NAMESPACE, lambda: made.now)
        yield made


def policy(*authorities: dict[str, Any], **spec: Any) -> Policy:
    parsed = parse_policy(
        {"metadata": {"name": "p"}, "spec": {"images": ["**"], "authorities": list(authorities)} | spec}
    )
    assert isinstance(parsed, Policy)
    return parsed


IN_SECRET = {"name": "plant", "keys": [{"secretRef": {"name": "plant-key"}}]}
IN_TEXT = {"name": "qa", "keys": [{"data": INLINE.pem.decode()}]}
CI: dict[str, Any] = {
    "name": "ci",
    "keyless": {"issuer": ISSUER, "subjectRegExp": ".*/models/.*", "trustedRoot": {"name": "sigstore"}},
}


async def test_a_policy_becomes_a_demand(place: Place) -> None:
    await place.put_key(FIRST.pem)
    await place.server.put(ROOT, {"data": {"trusted_root.json": Site().trusted_root().decode()}})
    check = {"expression": "predicate.ok", "message": "it is not ok"}
    attestation = {
        "name": "tests",
        "predicateType": "https://example.com/tests",
        "authorities": ["qa"],
        "checks": [check],
    }
    asked = await place.store.demand_of(
        policy(
            IN_SECRET | {"required": True},
            IN_TEXT,
            CI,
            threshold=2,
            acceptCopies=True,
            attestations=[attestation],
        ),
        platforms_signed=True,
    )
    demand = asked.demand
    assert asked.problems == ()
    assert [(one.name, one.keys) for one in demand.authorities] == [
        ("plant", (FIRST,)),
        ("qa", (INLINE,)),
        ("ci", ()),
    ]
    assert len(demand.authorities[2].identities) == 1
    assert (demand.threshold, demand.required) == (2, {"plant"})
    assert demand.any_repository
    assert demand.platforms_signed
    (wanted,) = demand.attestations
    assert (wanted.name, wanted.authorities) == ("tests", {"qa"})
    assert (wanted.checks[0].expression, wanted.checks[0].message) == ("predicate.ok", "it is not ok")


async def test_the_identity_that_is_made_verifies_its_own_bundles_only(place: Place) -> None:
    site = Site()
    await place.server.put(ROOT, {"data": {"trusted_root.json": site.trusted_root().decode()}})
    asked = await place.store.demand_of(policy(CI))
    (identity,) = asked.demand.authorities[0].identities
    other_keyless = CI["keyless"] | {"subjectRegExp": "someone else"}
    other = await place.store.demand_of(policy(CI | {"keyless": other_keyless}))
    (stranger,) = other.demand.authorities[0].identities
    statement = make_statement("registry.plant-a.local:5000/models/line", f"sha256:{'a' * 64}")
    made = json.dumps(site.bundle(statement)).encode()
    assert identity.verifies(made)
    assert not stranger.verifies(made)
    assert asked.fingerprint != other.fingerprint


async def test_nothing_is_read_again_while_it_is_fresh_and_a_rotation_is_seen_after(place: Place) -> None:
    await place.put_key(FIRST.pem)
    asked = await place.store.demand_of(policy(IN_SECRET))
    await place.put_key(SECOND.pem)
    place.now += KEEP_KEY_S - 1
    assert await place.store.demand_of(policy(IN_SECRET)) is asked
    assert len(place.server.calls) == 1
    place.now += 2
    rotated = await place.store.demand_of(policy(IN_SECRET))
    assert rotated.demand.authorities[0].keys == (SECOND,)
    assert rotated.fingerprint != asked.fingerprint


async def test_another_trusted_root_is_another_demand(place: Place) -> None:
    await place.server.put(ROOT, {"data": {"trusted_root.json": Site().trusted_root().decode()}})
    before = await place.store.demand_of(policy(CI))
    await place.server.put(ROOT, {"data": {"trusted_root.json": Site().trusted_root().decode()}})
    place.now += KEEP_KEY_S + 1
    assert (await place.store.demand_of(policy(CI))).fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("stored", "want"),
    [
        (None, "does not exist"),
        ({}, "has no field cosign.pub"),
        ({"data": {"cosign.pub": "%%%"}}, "is not base64"),
        ({"data": {"cosign.pub": "AAAA"}}, "not exactly one PEM block"),
        ({"data": {"cosign.pub": 7}}, "is not base64"),
    ],
)
async def test_a_key_that_is_none_is_a_known_problem(
    place: Place, stored: dict[str, Any] | None, want: str
) -> None:
    if stored is not None:
        await place.server.put(SECRET, stored)
    asked = await place.store.demand_of(policy(IN_SECRET, IN_TEXT))
    (problem,) = asked.problems
    assert want in problem.message
    assert problem.authority == "plant"
    assert not asked.is_unknown
    # The other authority goes on.
    assert [one.can_vouch for one in asked.demand.authorities] == [False, True]


@pytest.mark.parametrize("root", ["{}", "junk", '{"mediaType":"x"}', "[" * 5000])
async def test_a_trusted_root_that_is_none_is_a_known_problem(place: Place, root: str) -> None:
    await place.server.put(ROOT, {"data": {"trusted_root.json": root}})
    asked = await place.store.demand_of(policy(CI))
    assert [problem.authority for problem in asked.problems] == ["ci"]
    assert not asked.is_unknown


@pytest.mark.parametrize("status", [401, 403, 429, 500])
async def test_case_23_an_api_that_does_not_answer_leaves_a_key_unknown(place: Place, status: int) -> None:
    await place.put_key(FIRST.pem)
    place.server.refuse["GET", SECRET] = status
    asked = await place.store.demand_of(policy(IN_SECRET))
    assert asked.is_unknown
    assert str(status) in asked.problems[0].message
    place.server.refuse.clear()
    place.now += KEEP_PROBLEM_S + 1
    assert (await place.store.demand_of(policy(IN_SECRET))).problems == ()


async def test_a_secret_that_may_not_be_read_says_which_value_of_the_chart_names_it(place: Place) -> None:
    place.server.refuse["GET", SECRET] = 403
    (problem,) = (await place.store.demand_of(policy(IN_SECRET))).problems
    assert "name it in `trustPolicySecrets` of the chart" in problem.message
