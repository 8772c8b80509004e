"""Ten thousand random pods against an oracle that knows no code of the webhook.

The oracle is written from the rules of the documentation alone, the simplest way: it walks the pod by itself,
takes image names apart by itself, and matches globs by trying. It and the judge must agree on every pod: no
image without trust passes, and no trusted one is refused. All pods follow from one seed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from dataclasses import dataclass, field
from typing import Any

from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.admission.review import parse_review
from edgemodel_operator.admission.tags import TagMutator
from edgemodel_operator.core.exemption import Exemption
from edgemodel_operator.core.trust import AnyPolicy, Policy, PolicyVerdict
from edgemodel_operator.oci.reference import Reference
from support.admission import (
    HOST,
    OWN_NAMESPACE,
    StatedPolicies,
    StatedTags,
    exemption,
    make_judge,
    policy,
    review_of,
)

PODS = 10_000
SEED = 20261121
REPOSITORIES = ["models/a", "models/b", "tools/debug", "deep/er/path", "elsewhere/x"]
SIGNERS = ["plant", "quality"]
NAMESPACES = ["plant-a", "plant-b", "edgemodel-system"]
GLOBS = ["models/*", "models/a", "**", "tools/*", "deep/*", "deep/**"]
STRANGE = [
    "nginx",
    "library/nginx",
    "models/a",
    f"{HOST}/Models/a@sha256:{'0' * 64}",
    f"{HOST}/models/a@sha256:{'A' * 64}",
    f"{HOST}/models/a@sha256:{'0' * 63}",
    f"{HOST}/models/a@sha512:{'0' * 128}",
    f"{HOST}./models/a@sha256:{'0' * 64}",
    f"{HOST}/models/a@sha256:{'0' * 64}@sha256:{'0' * 64}",
    f"registry.plänt.local/models/a@sha256:{'0' * 64}",
    f"{HOST}/{'x' * 300}@sha256:{'0' * 64}",
    f"{HOST}:80/models/a@sha256:{'0' * 64}",
    f" {HOST}/models/a@sha256:{'0' * 64}",
]


@dataclass
class World:
    """What is true in one random world, for the oracle and for the judge."""

    signed: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """Repository and digest → who signed."""
    policies: list[dict[str, Any]] = field(default_factory=list)
    exceptions: list[dict[str, Any]] = field(default_factory=list)


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def make_world(chance: random.Random) -> World:
    world = World()
    for repository, number in itertools.product(REPOSITORIES, range(3)):
        world.signed[repository, digest(number)] = {one for one in SIGNERS if chance.random() < 0.5}
    for number in range(chance.randint(0, 3)):
        world.policies.append(
            {
                "name": f"p{number}",
                "globs": chance.sample(GLOBS, chance.randint(1, 2)),
                "signer": chance.choice(SIGNERS),
                "namespaces": chance.choice([[], [], ["plant-a"], ["plant-*"]]),
                "mode": chance.choice(["Enforce", "Enforce", "Audit"]),
            }
        )
    for number in range(chance.choice([0, 0, 1, 2])):
        world.exceptions.append(
            {
                "name": f"e{number}",
                "globs": [chance.choice(GLOBS)],
                "pin": chance.choice(["", "", f"@{digest(0)}"]),
                "namespaces": chance.choice([["plant-a"], ["*"]]),
                "policies": chance.choice([[], ["p0"], ["p1"], ["p0", "p1"]]),
                "over": chance.random() < 0.3,
            }
        )
    return world


def random_image(chance: random.Random) -> str:
    if chance.random() < 0.05:
        return chance.choice(STRANGE)
    name = f"{HOST}/{chance.choice(REPOSITORIES)}"
    number = chance.choice([0, 0, 1, 2])
    return chance.choice(
        [f"{name}@{digest(number)}"] * 6 + [f"{name}:v1@{digest(number)}", f"{name}:v{number}", name]
    )


def random_pod(chance: random.Random) -> dict[str, Any]:
    def containers(field_name: str, most: int, least: int = 0) -> list[dict[str, Any]]:
        return [
            {"name": f"{field_name}{n}", "image": random_image(chance)}
            for n in range(chance.randint(least, most))
        ]

    pod: dict[str, Any] = {"containers": containers("c", 2, 1)}
    if chance.random() < 0.3:
        pod["initContainers"] = containers("i", 2)
    if chance.random() < 0.2:
        pod["ephemeralContainers"] = containers("e", 1)
    if chance.random() < 0.3:
        pod["volumes"] = [
            {"name": "tmp", "emptyDir": {}},
            {"name": "v", "image": {"reference": random_image(chance)}},
        ]
    return pod


# --- the oracle -------------------------------------------------------------------------------------------


def images_in(document: Any) -> list[str]:
    """Find every image in a pod spec: each value of `image` or `reference` that is a text, wherever it is."""
    if isinstance(document, list):
        return [image for one in document for image in images_in(one)]
    if not isinstance(document, dict):
        return []
    own = [
        value for name, value in document.items() if name in {"image", "reference"} and isinstance(value, str)
    ]
    return own + [image for value in document.values() for image in images_in(value)]


def matches(glob: str, text: str) -> bool:
    if not glob:
        return not text
    if glob.startswith("**"):
        return any(matches(glob[2:], text[n:]) for n in range(len(text) + 1))
    if glob.startswith("*"):
        return any(matches(glob[1:], text[n:]) for n in range(len(text) + 1) if "/" not in text[:n])
    return bool(text) and glob[0] == text[0] and matches(glob[1:], text[1:])


def may_run(world: World, image: str, namespace: str) -> bool:
    """Say whether an image may run: all that matter are its repository, its digest, and who signed."""
    prefix, _, digest_text = image.partition("@")
    host, _, rest = prefix.partition("/")
    repository, _, _ = rest.partition(":")
    if image in STRANGE:
        return False
    assert host == HOST
    speaking = [
        one
        for one in world.policies
        if any(matches(glob, repository) for glob in one["globs"])
        and (not one["namespaces"] or any(matches(glob, namespace) for glob in one["namespaces"]))
    ]
    if not digest_text:
        return bool(speaking) and all(one["mode"] == "Audit" for one in speaking)
    signers = world.signed[repository, digest_text]
    refusing = {one["name"] for one in speaking if one["signer"] not in signers and one["mode"] == "Enforce"}
    if speaking and not refusing:
        return True
    for exception in world.exceptions:
        here = any(matches(glob, namespace) for glob in exception["namespaces"])
        pinned = not exception["pin"] or exception["pin"] == f"@{digest_text}"
        named = any(matches(glob, repository) for glob in exception["globs"])
        enough = not exception["policies"] or (bool(refusing) and refusing <= set(exception["policies"]))
        if here and pinned and named and enough and not exception["over"]:
            return True
    return False


# --- the same world for the judge -------------------------------------------------------------------------


class Signatures:
    """A verifier that looks into the world."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def verify(
        self,
        image: Reference,
        policy: Policy,
        *,
        remember: bool = True,
        turns: asyncio.Semaphore | None = None,
    ) -> PolicyVerdict:
        assert image.digest is not None
        assert image.tag is None
        assert remember
        (authority,) = policy.spec.authorities
        trusted = authority.name in self._world.signed[image.repository, image.digest]
        return PolicyVerdict(policy.name, policy.spec.mode, trusted, "" if trusted else "it is not signed")


def stated(world: World) -> StatedPolicies:
    policies: list[AnyPolicy] = [
        policy(
            one["name"],
            images=[f"{HOST}/{glob}" for glob in one["globs"]],
            authorities=[{"name": one["signer"], "keys": [{"secretRef": {"name": one["signer"]}}]}],
            namespaces=one["namespaces"],
            mode=one["mode"],
        )
        for one in world.policies
    ]
    exceptions: list[Exemption] = [
        exemption(
            *(f"{HOST}/{glob}{one['pin']}" for glob in one["globs"]),
            name=one["name"],
            namespace=OWN_NAMESPACE,
            namespaces=one["namespaces"],
            policies=one["policies"],
            expires="2026-11-21T11:59:59Z" if one["over"] else "2026-11-21T12:00:01Z",
        )
        for one in world.exceptions
    ]
    return StatedPolicies(tuple(policies), exceptions=tuple(exceptions))


async def test_ten_thousand_random_pods_are_judged_as_the_oracle_says() -> None:
    counts = {True: 0, False: 0}
    chance = random.Random(SEED)
    for number in range(PODS):
        if number % 20 == 0:
            world = make_world(chance)
            judge = make_judge(stated(world), Signatures(world))  # type: ignore[arg-type]
        pod, namespace = random_pod(chance), chance.choice(NAMESPACES)
        document = json.loads(json.dumps(review_of(pod, namespace=namespace)))
        decision = await judge.decide(parse_review(document))
        want = all(may_run(world, image, namespace) for image in images_in(pod))
        assert decision.allowed == want, f"seed {SEED}, pod {number} in {namespace}: {pod} {decision} {world}"
        counts[want] += 1
    # A test in which nearly everything is refused proves little.
    assert min(counts.values()) > PODS / 10


async def test_random_pods_whose_tags_were_resolved_are_judged_as_the_oracle_says_of_the_result() -> None:
    chance = random.Random(SEED + 1)
    tags = StatedTags(
        {f"{HOST}/{repository}:v{n}": digest(n) for repository in REPOSITORIES for n in range(3)}
    )
    resolved = 0
    for number in range(PODS // 10):
        world = make_world(chance)
        source = stated(world)
        pod, namespace = random_pod(chance), chance.choice(NAMESPACES)
        mutation = await TagMutator(source, tags, AdmissionMetrics()).mutate(
            parse_review(review_of(pod, namespace=namespace))
        )
        for operation in mutation.patch:
            *steps, last = operation["path"].removeprefix("/spec/").split("/")
            target: Any = pod
            for step in steps:
                target = target[int(step)] if isinstance(target, list) else target[step]
            assert operation["value"].startswith(f"{target[last]}@sha256:")
            target[last] = operation["value"]
            resolved += 1
        judge = make_judge(source, Signatures(world))  # type: ignore[arg-type]
        decision = await judge.decide(parse_review(review_of(pod, namespace=namespace)))
        want = all(may_run(world, image, namespace) for image in images_in(pod))
        assert decision.allowed == want, f"seed {SEED + 1}, pod {number} in {namespace}: {pod} {world}"
    assert resolved > PODS / 200
