"""Decisions about requests. The numbers are those of the procedure that the judge writes down."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from edgemodel_operator.admission import verdict_cache
from edgemodel_operator.admission.judge import MAX_IMAGES, Judge
from edgemodel_operator.admission.metrics import Outcome
from edgemodel_operator.admission.review import ImageUse, Review
from edgemodel_operator.admission.verdict_book import VerdictBook, image_hash
from edgemodel_operator.admission.verdict_cache import VerdictCache, VerdictKey
from edgemodel_operator.api.trustpolicy import Mode
from edgemodel_operator.core.trust import AnyPolicy, Policy, PolicyVerdict
from edgemodel_operator.oci.reference import Reference
from support.admission import (
    GOOD,
    HOST,
    NOW,
    UNKNOWN,
    UNSIGNED,
    StatedPolicies,
    StatedTags,
    StatedVerdicts,
    digest_of,
    exemption,
    make_judge,
    pinned,
    policy,
)


def review(*images: str, starting: tuple[str, ...] | None = None, **more: Any) -> Review:
    values: dict[str, Any] = {
        "uid": "u",
        "operation": "CREATE",
        "resource": "pods",
        "subresource": "",
        "namespace": "plant-a",
        "name": "line",
        "user": "kim",
        "dry_run": False,
    }
    uses = tuple(ImageUse(f"containers[c{n}]", image) for n, image in enumerate(images))
    fresh = uses if starting is None else tuple(use for use in uses if use.image in starting)
    return Review(images=uses, starting=fresh, **(values | more))


def judge_with(*policies: AnyPolicy, synced: bool = True, **more: Any) -> tuple[Judge, StatedVerdicts]:
    verdicts = StatedVerdicts()
    return make_judge(StatedPolicies(policies, synced, **more), verdicts), verdicts


async def test_1_before_the_policies_were_read_everything_is_refused() -> None:
    judge, _ = judge_with(policy(), synced=False)
    for request in (review(GOOD), review(GOOD, operation="UPDATE", starting=())):
        decision = await judge.decide(request)
        assert not decision.allowed
        assert decision.outcome is Outcome.ERROR
        assert "have not been read yet" in decision.message


@pytest.mark.parametrize("image", [GOOD, UNSIGNED, f"{HOST}/models/old:1"])
async def test_2_what_does_not_start_is_not_verified(image: str) -> None:
    judge, verdicts = judge_with(policy())
    assert (await judge.decide(review(image, operation="UPDATE", starting=()))).allowed
    assert verdicts.asked == []


async def test_2_of_an_update_only_what_starts_is_judged() -> None:
    judge, verdicts = judge_with(policy())
    assert (await judge.decide(review(UNSIGNED, GOOD, operation="UPDATE", starting=(GOOD,)))).allowed
    assert verdicts.asked == [(GOOD, "plant")]
    assert not (await judge.decide(review(UNSIGNED, operation="UPDATE", starting=(UNSIGNED,)))).allowed


async def test_2_a_static_pod_that_its_node_reports_is_left_to_the_audit() -> None:
    judge, verdicts = judge_with(policy())
    assert (await judge.decide(review(UNSIGNED, mirror=True))).allowed
    assert verdicts.asked == []


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
async def test_case_42_names_that_can_mean_different_images_are_refused(image: str, want: str) -> None:
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


async def test_case_42b_a_tag_beside_a_digest_that_means_something_else_changes_nothing() -> None:
    verdicts, tags = StatedVerdicts(), StatedTags({f"{HOST}/models/good:7": digest_of("models/unsigned")})
    judge = make_judge(StatedPolicies((policy(),)), verdicts, tags)
    assert (await judge.decide(review(GOOD.replace("@", ":7@")))).allowed
    assert not (await judge.decide(review(UNSIGNED.replace("@", ":7@")))).allowed
    assert verdicts.asked == [(GOOD, "plant"), (UNSIGNED, "plant")]
    assert tags.asked == []


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


async def test_case_40b_every_policy_is_asked_and_every_image_once() -> None:
    judge, verdicts = judge_with(policy("b"), policy("a"))
    assert (await judge.decide(review(GOOD, GOOD, GOOD))).allowed
    assert sorted(verdicts.asked) == [(GOOD, "a"), (GOOD, "b")]


async def test_case_40c_a_policy_that_is_not_understood_admits_nothing() -> None:
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


async def test_case_40a_audit_beside_enforce_softens_nothing() -> None:
    judge, _ = judge_with(policy("soft", mode="Audit"), policy("hard"))
    for image in (UNSIGNED, UNKNOWN, f"{HOST}/models/good:1"):
        assert not (await judge.decide(review(image))).allowed


async def test_audit_does_not_cover_images_about_which_no_policy_speaks() -> None:
    judge, _ = judge_with(policy(mode="Audit"))
    assert not (await judge.decide(review(pinned("other/x")))).allowed


async def test_a_verification_that_takes_too_long_is_a_refusal_and_not_an_answer_too_late() -> None:
    judge = make_judge(StatedPolicies((policy(),)), StatedVerdicts(waits=True), budget_seconds=0.01)
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


async def test_3_a_tag_in_a_template_is_looked_up_for_an_early_answer() -> None:
    tags = StatedTags(
        {
            f"{HOST}/models/good:7": digest_of("models/good"),
            f"{HOST}/models/unsigned:7": digest_of("models/unsigned"),
        }
    )
    judge = make_judge(StatedPolicies((policy(),)), StatedVerdicts(), tags)
    assert (await judge.decide(review(f"{HOST}/models/good:7", resource="deployments"))).allowed
    refused = await judge.decide(review(f"{HOST}/models/unsigned:7", resource="deployments"))
    assert refused.outcome is Outcome.DENY
    assert "it is not signed" in refused.message
    away = await judge.decide(review(f"{HOST}/models/other:7", resource="deployments"))
    assert away.outcome is Outcome.ERROR
    assert "could not be verified: the registry is away" in away.message


async def test_3_an_exception_for_one_digest_counts_for_the_tag_of_a_template() -> None:
    tags = StatedTags({f"{HOST}/models/unsigned:7": digest_of("models/unsigned")})
    stated = StatedPolicies((policy(),), exceptions=(exemption(UNSIGNED),))
    judge = make_judge(stated, StatedVerdicts(), tags)
    assert (await judge.decide(review(f"{HOST}/models/unsigned:7", resource="deployments"))).allowed


async def test_3_in_a_template_a_tag_that_no_policy_knows_is_refused_and_nobody_is_asked() -> None:
    tags = StatedTags()
    judge = make_judge(StatedPolicies((policy(),)), StatedVerdicts(), tags)
    refused = await judge.decide(review("registry.example.com/x:1", resource="deployments"))
    assert "no TrustPolicy matches it" in refused.message
    assert tags.asked == []


async def test_7_an_exception_admits_with_a_warning_that_names_it_and_its_end() -> None:
    judge, _ = judge_with(policy(), exceptions=(exemption(f"{HOST}/models/unsigned"),))
    decision = await judge.decide(review(UNSIGNED))
    assert (decision.allowed, decision.outcome, decision.mode) == (True, Outcome.ALLOW, Mode.ENFORCE)
    assert decision.exceptions == ("for-now",)
    assert 'TrustException "for-now" excuses it until 2026-12-01T00:00:00Z' in decision.warnings[0]


@pytest.mark.parametrize("image", [UNKNOWN, pinned("elsewhere/x")])
async def test_7_an_exception_from_everything_also_covers_errors_and_silence(image: str) -> None:
    judge, _ = judge_with(policy(), exceptions=(exemption(f"{HOST}/**"),))
    assert (await judge.decide(review(image))).allowed


@pytest.mark.parametrize("name", ["models/unsigned", "elsewhere/x"])
async def test_7_a_tag_is_never_excused(name: str) -> None:
    judge, _ = judge_with(policy(), exceptions=(exemption(f"{HOST}/**"),))
    decision = await judge.decide(review(f"{HOST}/{name}:1"))
    assert "named by tag" in decision.message


async def test_case_40d_two_exceptions_never_add_up() -> None:
    policies = (policy("plant"), policy("quality"))
    halves = tuple(
        exemption(f"{HOST}/models/*", name=f"for-{name}", policies=[name]) for name in ("plant", "quality")
    )
    whole = exemption(f"{HOST}/models/*", name="for-both", policies=["plant", "quality"])
    judge, _ = judge_with(*policies, exceptions=halves)
    assert not (await judge.decide(review(UNSIGNED))).allowed
    judge, _ = judge_with(*policies, exceptions=(*halves, whole))
    assert (await judge.decide(review(UNSIGNED))).exceptions == ("for-both",)


async def test_case_40e_an_exception_that_is_over_counts_no_more() -> None:
    stated = StatedPolicies((policy(),), exceptions=(exemption(f"{HOST}/models/*"),))
    assert (await make_judge(stated).decide(review(UNSIGNED))).allowed
    for later in (timedelta(days=20), timedelta(days=-3650)):
        assert not (await make_judge(stated, now=NOW + later).decide(review(UNSIGNED))).allowed


async def test_case_35_the_name_of_a_namespace_or_pod_opens_nothing() -> None:
    judge, _ = judge_with(policy())
    for namespace in ("edgemodel-system", "Edgemodel-System", "edgemodel-system-2", "kube-system", "new"):
        assert not (await judge.decide(review(UNSIGNED, namespace=namespace))).allowed
    assert not (await judge.decide(review(UNSIGNED, name="line-*"))).allowed


async def test_a_dry_run_is_judged_alike_and_nothing_of_it_is_kept() -> None:
    judge, verdicts = judge_with(policy())
    assert (await judge.decide(review(GOOD, dry_run=True))).allowed
    assert not (await judge.decide(review(UNSIGNED, dry_run=True))).allowed
    assert verdicts.forgotten == [GOOD, UNSIGNED]


async def test_the_findings_say_who_vouched_and_what_is_missing() -> None:
    judge, _ = judge_with(policy())
    found = {finding.image: finding for finding in (await judge.decide(review(GOOD, UNSIGNED))).findings}
    assert found[GOOD].verdicts[0].by == ("plant=sha256:aa",)
    assert found[UNSIGNED].reasons == ("Unsigned",)


class Busy:
    """Verifies whatever it is asked, and counts how much of that at once."""

    def __init__(self, cache: VerdictCache) -> None:
        self._cache = cache
        self._running = 0
        self.most = 0

    async def verify(
        self,
        image: Reference,
        policy: Policy,
        *,
        remember: bool = True,
        turns: asyncio.Semaphore | None = None,
    ) -> PolicyVerdict:
        key = VerdictKey(image_hash(str(image)), policy.name)
        finding = await self._cache.get(key, self._examine, remember=remember, turns=turns)
        return PolicyVerdict(policy.name, policy.spec.mode, finding.trusted)

    async def _examine(self) -> verdict_cache.Finding:
        self._running += 1
        self.most = max(self.most, self._running)
        for _ in range(5):
            await asyncio.sleep(0)
        self._running -= 1
        return verdict_cache.Finding(trusted=True)


async def test_case_37c_one_review_of_a_hundred_images_and_two_policies_takes_its_turns() -> None:
    images = [f"{HOST}/models/m{number}@sha256:{number:064x}" for number in range(100)]
    verifier = Busy(VerdictCache(VerdictBook(), time.time, time.monotonic))
    judge = make_judge(StatedPolicies((policy(), policy("second"))), verifier)
    assert (await judge.decide(review(*images))).allowed
    assert verifier.most == verdict_cache.MAX_EACH
