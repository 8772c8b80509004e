"""A supply that failed: where it is shown, and that another try is no news until it has an end."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from edgemodel_operator.api.conditions import Finding
from edgemodel_operator.core.chain import Chain, assess
from edgemodel_operator.core.placement import CPU_CLASS
from edgemodel_operator.core.world import Supply, SupplyStage, SupplyStep, Trust, Verdict, World
from support.builders import fleet, make_model
from support.simulator import start

VARIANT = CPU_CLASS.runtimes[0].variant
FAILURE = Supply(SupplyStage.FAILED, SupplyStep.SOURCE, reason="SourceNotFound", message="it is not there")


def world_with(supply: Supply) -> World:
    return replace(start(make_model(), fleet(1)).world(), supplies={VARIANT: supply})


def finding(chain: Chain, kind: str) -> Finding:
    return next(item for item in chain.findings if item.type == kind)


@pytest.mark.parametrize("step", [SupplyStep.PREPARE, SupplyStep.SOURCE, SupplyStep.BUILD, SupplyStep.SIGN])
@pytest.mark.parametrize("needs_person", [True, False])
def test_a_failure_stays_in_place_while_it_is_tried_again(step: SupplyStep, needs_person: bool) -> None:
    failure = replace(FAILURE, needs_person=needs_person)
    again = Supply(SupplyStage.RUNNING, step, progress="fetching the model file", earlier=failure)

    before, during = assess(world_with(failure)), assess(world_with(again))

    assert [(item.type, item.status, item.reason) for item in during.findings] == [
        (item.type, item.status, item.reason) for item in before.findings
    ]
    assert finding(during, "SourceResolved").message == (
        "it is not there; trying again: fetching the model file"
    )
    assert during.hold is not None
    assert during.hold.stalled is needs_person
    assert during.to_supply == ()


def test_a_build_that_failed_before_its_source_says_nothing_about_the_source() -> None:
    chain = assess(world_with(replace(FAILURE, step=SupplyStep.PREPARE, reason="RegistryUnavailable")))

    assert finding(chain, "SourceResolved").status == "Unknown"
    assert finding(chain, "Built").status == "False"
    assert finding(chain, "Built").reason == "RegistryUnavailable"


def test_a_build_goes_through_its_links_in_one_direction() -> None:
    reasons = [
        finding(assess(world_with(Supply(SupplyStage.RUNNING, step))), kind).reason
        for step, kind in (
            (SupplyStep.PREPARE, "SourceResolved"),
            (SupplyStep.SOURCE, "SourceResolved"),
            (SupplyStep.BUILD, "Built"),
            (SupplyStep.SIGN, "Signed"),
        )
    ]

    assert reasons == ["Fetching", "Fetching", "Building", "Signing"]


@pytest.mark.parametrize("needs_person", [True, False])
def test_a_verdict_that_only_a_person_can_bring_stalls(needs_person: bool) -> None:
    image = "registry.example.com/line@sha256:" + "0" * 64
    world = world_with(Supply(SupplyStage.SIGNED, image=image))
    verdict = Verdict(Trust.UNKNOWN, "SecretNotFound", "there is no such Secret", needs_person)

    chain = assess(replace(world, verdicts={image: verdict}))

    assert chain.hold is not None
    assert chain.hold.stalled is needs_person
    assert finding(chain, "Trusted").reason == "SecretNotFound"


LOST = Verdict(Trust.UNTRUSTED, "ImageNotFound", "it is not in its registry.")


def test_an_image_that_is_lost_is_made_again_once_its_time_has_come() -> None:
    image = "registry.example.com/line@sha256:" + "0" * 64
    world = world_with(Supply(SupplyStage.SIGNED, image=image))
    world = replace(world, verdicts={image: LOST})

    def asked(verdict: Verdict, retry_at: datetime | None) -> tuple[str, ...]:
        supply = Supply(SupplyStage.SIGNED, image=image, retry_at=retry_at)
        return assess(replace(world, supplies={VARIANT: supply}, verdicts={image: verdict})).to_supply

    assert asked(LOST, world.now) == (VARIANT,)
    assert asked(LOST, world.now + timedelta(seconds=1)) == ()
    assert asked(Verdict(Trust.UNKNOWN, "RegistryUnavailable", "no answer"), world.now) == ()
    assert asked(Verdict(Trust.TRUSTED), world.now) == ()


def test_while_it_is_made_again_its_verdict_stays_in_place() -> None:
    image = "registry.example.com/line@sha256:" + "0" * 64
    signed = Supply(SupplyStage.SIGNED, image=image)
    again = replace(signed, progress="pushing the image")

    before, during = (
        assess(replace(world_with(supply), verdicts={image: LOST})) for supply in (signed, again)
    )

    assert [(item.type, item.status, item.reason) for item in during.findings] == [
        (item.type, item.status, item.reason) for item in before.findings
    ]
    assert finding(during, "Trusted").message == (
        "it is not in its registry.; trying again: pushing the image"
    )
