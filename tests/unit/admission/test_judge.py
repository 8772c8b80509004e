"""Decisions about requests. The numbers are those of the procedure that the judge writes down."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgemodel_operator.admission.judge import MAX_IMAGES, Judge
from edgemodel_operator.admission.metrics import Outcome
from edgemodel_operator.admission.review import ImageUse, Review
from edgemodel_operator.admission.verifier import CannotVerify
from edgemodel_operator.api.trustpolicy import Mode
from edgemodel_operator.core.trust import AnyPolicy, Policy, PolicyVerdict, parse_policy
from edgemodel_operator.oci.reference import Reference

PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
HOST = "registry.plant-a.local:5000"


def pinned(name: str) -> str:
    return f"{HOST}/{name}@sha256:{name.encode().hex().ljust(64, '0')[:64]}"


GOOD, UNSIGNED, UNKNOWN = pinned("models/good"), pinned("models/unsigned"), pinned("models/unknown")


@dataclass
class StatedPolicies:
    """Policies stated by a test."""

    policies: tuple[AnyPolicy, ...] = ()
    synced: bool = True


@dataclass
class StatedVerdicts:
    """A verifier that knows three images; it counts what it is asked and can be made to wait."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    waits: bool = False

    async def verify(self, image: Reference, policy: Policy) -> PolicyVerdict:
        self.asked.append((str(image), policy.name))
        if self.waits:
            await self.go_on.wait()
        if str(image) == UNKNOWN:
            raise CannotVerify("the registry is away")
        trusted = str(image) == GOOD
        return PolicyVerdict(policy.name, policy.spec.mode, trusted, "" if trusted else "it is not signed")


def policy(name: str = "plant", **spec: Any) -> AnyPolicy:
    authorities = [{"name": "plant", "keys": [{"data": PEM}]}]
    spec = {"images": [f"{HOST}/models/*"], "authorities": authorities} | spec
    return parse_policy({"metadata": {"name": name}, "spec": spec})


def review(*images: str, operation: str = "CREATE", old: tuple[str, ...] = (), **more: Any) -> Review:
    values: dict[str, Any] = {
        "uid": "u",
        "resource": "pods",
        "subresource": "",
        "namespace": "plant-a",
        "name": "line",
        "user": "kim",
        "dry_run": False,
    }
    uses = tuple(ImageUse(f"containers[c{n}]", image) for n, image in enumerate(images))
    before = tuple(ImageUse(f"containers[c{n}]", image) for n, image in enumerate(old))
    return Review(operation=operation, images=uses, old_images=before, **(values | more))


def judge_with(*policies: AnyPolicy, synced: bool = True) -> tuple[Judge, StatedVerdicts]:
    verdicts = StatedVerdicts()
    return Judge(StatedPolicies(policies, synced), verdicts), verdicts


async def test_1_before_the_policies_were_read_everything_is_refused() -> None:
    judge, _ = judge_with(policy(), synced=False)
    for request in (review(GOOD), review(GOOD, operation="UPDATE", old=(GOOD,))):
        decision = await judge.decide(request)
        assert not decision.allowed
        assert decision.outcome is Outcome.ERROR
        assert "have not been read yet" in decision.message


@pytest.mark.parametrize("image", [GOOD, UNSIGNED, f"{HOST}/models/old:1"])
async def test_2_an_update_that_leaves_the_images_alone_passes_without_verification(image: str) -> None:
    judge, verdicts = judge_with(policy())
    assert (await judge.decide(review(image, operation="UPDATE", old=(image,)))).allowed
    assert verdicts.asked == []


async def test_2_an_update_of_an_image_is_judged_also_on_an_object_being_deleted() -> None:
    judge, _ = judge_with(policy())
    assert not (await judge.decide(review(UNSIGNED, operation="UPDATE", old=(GOOD,)))).allowed
    assert (await judge.decide(review(GOOD, operation="UPDATE", old=(UNSIGNED,)))).allowed


@pytest.mark.parametrize(
    ("image", "want"),
    [
        (f"{HOST}/models/good:7", f"write {HOST}/models/good@sha256:…"),
        ("nginx", "names no registry"),
        ("library/nginx", "names no registry"),
        (f"{HOST}/models/good@sha256:abc", "64 lower-case hex digits"),
        (f"{HOST}/models/good@sha512:{'a' * 128}", "64 lower-case hex digits"),
        (f"{HOST}/Models/good:1", "not a repository name"),
        ("registry.example.com./models/good", "not a registry host"),
        ("registry.exämple.com/models/good", "not a registry host"),
        (f"{HOST}/{'a/' * 200}x", "exceed"),
        (f"{HOST}/{'x' * 600}", "too long"),
        (f"{HOST}:99999/models/good", "not a registry host"),
        (f" {GOOD}", "not a registry host"),
        (f"{GOOD}\n", "64 lower-case hex digits"),
    ],
)
async def test_3_names_that_can_mean_different_images_are_refused(image: str, want: str) -> None:
    judge, verdicts = judge_with(policy(images=["**"]))
    decision = await judge.decide(review(image))
    assert not decision.allowed
    assert want in decision.message
    assert "containers[c0]" in decision.message
    assert verdicts.asked == []


async def test_3_beside_a_digest_the_tag_means_nothing() -> None:
    judge, verdicts = judge_with(policy())
    assert (await judge.decide(review(GOOD.replace("@", ":7@")))).allowed
    assert verdicts.asked == [(GOOD, "plant")]


async def test_3_the_registry_host_is_compared_without_regard_to_case() -> None:
    judge, verdicts = judge_with(policy())
    assert (await judge.decide(review(GOOD.replace(HOST, HOST.upper())))).allowed
    assert verdicts.asked == [(GOOD, "plant")]


async def test_4_an_image_about_which_no_policy_speaks_is_refused() -> None:
    judge, _ = judge_with(policy(), policy("elsewhere", images=["**"], namespaces=["plant-b"]))
    decision = await judge.decide(review(pinned("other/x")))
    assert decision.outcome is Outcome.DENY
    assert "no TrustPolicy matches it in namespace plant-a" in decision.message


async def test_5_the_refusal_names_the_image_the_policy_and_what_is_missing() -> None:
    judge, _ = judge_with(policy())
    decision = await judge.decide(review(GOOD, UNSIGNED))
    assert decision.outcome is Outcome.DENY
    assert decision.message == f'image {UNSIGNED} does not satisfy TrustPolicy "plant": it is not signed'


async def test_5_every_policy_is_asked_and_every_image_once() -> None:
    judge, verdicts = judge_with(policy("b"), policy("a"))
    assert (await judge.decide(review(GOOD, GOOD, GOOD))).allowed
    assert sorted(verdicts.asked) == [(GOOD, "a"), (GOOD, "b")]


async def test_5_a_policy_that_is_not_understood_admits_nothing() -> None:
    judge, _ = judge_with(policy(), policy("newer", quorum=2))
    decision = await judge.decide(review(GOOD))
    assert not decision.allowed
    assert 'TrustPolicy "newer": the policy itself cannot be understood (spec.quorum' in decision.message


async def test_6_what_cannot_be_verified_is_refused_as_an_error() -> None:
    judge, _ = judge_with(policy())
    decision = await judge.decide(review(GOOD, UNKNOWN))
    assert decision.outcome is Outcome.ERROR
    assert "could not be verified: the registry is away" in decision.message
    assert (await judge.decide(review(UNSIGNED, UNKNOWN))).outcome is Outcome.DENY


@pytest.mark.parametrize(
    ("image", "want"),
    [(UNSIGNED, Outcome.DENY), (UNKNOWN, Outcome.ERROR), (f"{HOST}/models/good:1", Outcome.DENY)],
)
async def test_audit_admits_with_a_warning_and_says_what_it_would_have_been(
    image: str, want: Outcome
) -> None:
    judge, _ = judge_with(policy(mode="Audit"))
    decision = await judge.decide(review(image))
    assert decision.allowed
    assert (decision.outcome, decision.mode) == (want, Mode.AUDIT)
    assert len(decision.warnings) == 1


async def test_audit_beside_enforce_softens_nothing() -> None:
    judge, _ = judge_with(policy("soft", mode="Audit"), policy("hard"))
    for image in (UNSIGNED, UNKNOWN, f"{HOST}/models/good:1"):
        assert not (await judge.decide(review(image))).allowed


async def test_audit_does_not_cover_images_about_which_no_policy_speaks() -> None:
    judge, _ = judge_with(policy(mode="Audit"))
    assert not (await judge.decide(review(pinned("other/x")))).allowed


async def test_a_verification_that_takes_too_long_is_a_refusal_and_not_an_answer_too_late() -> None:
    verdicts = StatedVerdicts(waits=True)
    judge = Judge(StatedPolicies((policy(),)), verdicts, budget_seconds=0.01)
    decision = await judge.decide(review(GOOD))
    assert decision.outcome is Outcome.ERROR
    assert "could not be verified within 0.01 s" in decision.message


async def test_a_hundred_containers_are_fine_and_more_images_than_a_pod_needs_are_not() -> None:
    judge, verdicts = judge_with(policy())
    assert (await judge.decide(review(*[GOOD] * 300))).allowed
    assert len(verdicts.asked) == 1
    decision = await judge.decide(review(*(pinned(f"models/m{n}") for n in range(MAX_IMAGES + 1))))
    assert f"more than {MAX_IMAGES} different images" in decision.message


async def test_an_empty_pod_template_runs_nothing_and_passes() -> None:
    judge, _ = judge_with()
    assert (await judge.decide(review())).allowed
