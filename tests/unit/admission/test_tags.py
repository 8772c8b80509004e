"""Tags in pods become digests, once, and what decides is the digest that everybody sees."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.admission.review import parse_review
from edgemodel_operator.admission.tags import Mutation, TagMutator
from edgemodel_operator.core.trust import AnyPolicy
from edgemodel_operator.oci.reference import Reference
from support.admission import (
    GOOD,
    HOST,
    UNSIGNED,
    StatedPolicies,
    StatedTags,
    StatedVerdicts,
    digest_of,
    make_judge,
    pod_spec,
    policy,
    review_of,
)

TAG = f"{HOST}/models/good:7"
RESOLVED = f"{HOST}/models/good:7@{digest_of('models/good')}"
TAGS = {TAG: digest_of("models/good"), f"{HOST}/models/good:latest": digest_of("models/good")}


def mutator(tags: Any = None, *policies: AnyPolicy, budget_seconds: float = 4.0) -> TagMutator:
    stated = StatedPolicies(policies or (policy(),))
    return TagMutator(stated, tags or StatedTags(TAGS), AdmissionMetrics(), budget_seconds=budget_seconds)


async def mutate(document: dict[str, Any], by: TagMutator | None = None) -> Mutation:
    return await (by or mutator()).mutate(parse_review(document))


def applied(document: dict[str, Any], mutation: Mutation) -> dict[str, Any]:
    """Apply a patch as the API server does: each operation replaces what is at its path."""
    changed = copy.deepcopy(document)
    for operation in mutation.patch:
        assert operation["op"] == "replace"
        *steps, last = operation["path"].removeprefix("/").split("/")
        target: Any = changed["request"]["object"]
        for step in steps:
            target = target[int(step)] if isinstance(target, list) else target[step]
        assert last in target
        target[last] = operation["value"]
    return changed


async def test_tags_of_every_kind_of_container_and_of_image_volumes_are_resolved() -> None:
    spec = pod_spec(
        TAG,
        GOOD,
        f"{HOST}/models/good",
        initContainers=[{"name": "i", "image": TAG}],
        ephemeralContainers=[{"name": "e", "image": TAG}],
        volumes=[{"name": "tmp", "emptyDir": {}}, {"name": "v", "image": {"reference": TAG}}],
    )
    tags = StatedTags(TAGS)
    document = review_of(spec)
    after = applied(document, await mutate(document, mutator(tags)))["request"]["object"]["spec"]
    untagged = f"{HOST}/models/good@{digest_of('models/good')}"
    assert [one["image"] for one in after["containers"]] == [RESOLVED, GOOD, untagged]
    assert after["initContainers"][0]["image"] == RESOLVED
    assert after["ephemeralContainers"][0]["image"] == RESOLVED
    assert after["volumes"][1]["image"]["reference"] == RESOLVED
    assert tags.asked == [TAG, f"{HOST}/models/good"]


async def test_case_38a_asked_again_about_its_own_work_it_changes_nothing() -> None:
    document = review_of(pod_spec(TAG, TAG))
    once = applied(document, await mutate(document))
    assert await mutate(once) == Mutation()
    for more in ({"dryRun": True}, {}):
        assert (await mutate(review_of(pod_spec(TAG), **more))).patch == (
            {"op": "replace", "path": "/spec/containers/0/image", "value": RESOLVED},
        )


async def test_case_38b_what_another_webhook_writes_after_us_is_judged_as_it_is_seen() -> None:
    judge = make_judge(StatedPolicies((policy(),)))
    document = review_of(pod_spec(TAG))
    pod = applied(document, await mutate(document))
    assert (await judge.decide(parse_review(pod))).allowed
    container = pod["request"]["object"]["spec"]["containers"][0]
    container["image"] = RESOLVED.replace(HOST, "mirror.plant-b.local:5000")
    assert "no TrustPolicy matches it" in (await judge.decide(parse_review(pod))).message
    container["image"] = f"{HOST}/models/good:8"
    assert await mutate(pod) == Mutation(
        warnings=(f"the tag of {HOST}/models/good:8 could not be looked up: the registry is away",)
    )
    assert "named by tag" in (await judge.decide(parse_review(pod))).message


class FlippingTags:
    """A registry that moves its tag after each question."""

    def __init__(self, *digests: str) -> None:
        self.digests = list(digests)

    async def digest_of(self, image: Reference) -> str:
        assert image.tag == "7"
        return self.digests.pop(0)


@pytest.mark.parametrize(("first", "second"), [("good", "unsigned"), ("unsigned", "good")])
async def test_case_19_the_tag_may_flip_between_two_questions_and_the_digest_decides(
    first: str, second: str
) -> None:
    tags = FlippingTags(digest_of(f"models/{first}"), digest_of(f"models/{second}"))
    verdicts = StatedVerdicts()
    judge = make_judge(StatedPolicies((policy(),)), verdicts, tags)  # type: ignore[arg-type]
    document = review_of(pod_spec(TAG, TAG))
    pod = applied(document, await mutate(document, mutator(tags)))
    decision = await judge.decide(parse_review(pod))
    seen = f"{HOST}/models/good@{digest_of(f'models/{first}')}"
    assert verdicts.asked == [(seen, "plant")]  # exactly what the pod now says, asked once
    assert decision.allowed == (seen == GOOD)
    assert len(tags.digests) == 1  # nobody asked about the tag a second time


async def test_an_unreachable_registry_leaves_the_tag_and_the_other_one_refuses_it() -> None:
    document = review_of(pod_spec(f"{HOST}/models/away:1", TAG))
    mutation = await mutate(document)
    assert [one["path"] for one in mutation.patch] == ["/spec/containers/1/image"]
    assert mutation.warnings == (
        f"the tag of {HOST}/models/away:1 could not be looked up: the registry is away",
    )
    decision = await make_judge(StatedPolicies((policy(),))).decide(parse_review(applied(document, mutation)))
    assert "named by tag, which can mean another image in a moment" in decision.message


async def test_a_silent_registry_is_waited_for_in_bounds() -> None:
    mutation = await mutate(review_of(pod_spec(TAG)), mutator(StatedTags(waits=True), budget_seconds=0.01))
    assert mutation.patch == ()
    assert "did not answer in time" in mutation.warnings[0]


@pytest.mark.parametrize(
    "image", ["nginx", "registry.example.com/x:1", f"{HOST}/other/x:1", f"{HOST}/Models/good:7", UNSIGNED]
)
async def test_nobody_is_asked_about_names_that_no_policy_knows(image: str) -> None:
    tags = StatedTags()
    assert await mutate(review_of(pod_spec(image)), mutator(tags)) == Mutation()
    assert tags.asked == []


@pytest.mark.parametrize(("group", "resource"), [("apps", "deployments"), ("batch", "jobs")])
async def test_templates_stay_as_their_owner_wrote_them(group: str, resource: str) -> None:
    document = review_of({"template": {"spec": pod_spec(TAG)}}, group=group, resource=resource)
    assert await mutate(document) == Mutation()


async def test_static_pods_stay_as_their_node_reports_them() -> None:
    metadata = {"annotations": {"kubernetes.io/config.mirror": "hash"}}
    node = {"username": "system:node:edge-1", "groups": ["system:nodes"]}
    pod = {"metadata": metadata, "spec": pod_spec(TAG, nodeName="edge-1")}
    assert await mutate(review_of({}, object=pod, userInfo=node)) == Mutation()


async def test_a_pod_that_runs_is_not_restarted_by_us() -> None:
    old = {"metadata": {}, "spec": pod_spec(TAG)}
    for spec in (pod_spec(TAG), pod_spec(TAG, activeDeadlineSeconds=5)):
        assert await mutate(review_of(spec, operation="UPDATE", oldObject=old)) == Mutation()
    debug = pod_spec(TAG, ephemeralContainers=[{"name": "e", "image": TAG}])
    mutation = await mutate(review_of(debug, operation="UPDATE", oldObject=old))
    assert [one["path"] for one in mutation.patch] == ["/spec/ephemeralContainers/0/image"]
