"""`kubectl edgemodel verify`: hold the images of an EdgeModel against the policies of its cluster."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from edgemodel_operator.adapters.policy_verifier import PolicyVerifier
from edgemodel_operator.cli.kubectl_cluster import (
    ClusterView,
    NotThere,
    Place,
    cluster_told,
    open_view,
    place_options,
)
from edgemodel_operator.cli.model_images import RevisionImages, revision_images
from edgemodel_operator.cli.outcome import run
from edgemodel_operator.cli.registry import Registries, registry_client, registry_options
from edgemodel_operator.cli.verify_command import check_policy
from edgemodel_operator.cli.verify_report import Check, State, VerifyReport
from edgemodel_operator.core.exemption import Exemption, choose_exemption
from edgemodel_operator.core.trust import AnyPolicy, BrokenPolicy, matching_policies, no_policy_sentence
from edgemodel_operator.oci.reference import Reference


@dataclass(frozen=True)
class _Verified:
    """One image of a revision, and what the policies say."""

    revision: RevisionImages
    report: VerifyReport

    def lines(self) -> list[str]:
        name = f"revision {self.revision.name} " if self.revision.name else ""
        return [f"{name}({', '.join(self.revision.roles)})", *self.report.lines(), ""]

    def document(self) -> dict[str, Any]:
        roles = list(self.revision.roles)
        return {"revision": self.revision.name, "roles": roles, **self.report.document()}


@click.command("verify")
@click.argument("name")
@place_options
@registry_options
def verify_model(*, name: str, place: Place, registries: Registries, output: str) -> None:
    """Verify the images of the EdgeModel NAME as the cluster does, and print each step.

    The images are those of the revision that runs and of the one that is asked for. Registries are asked from
    here, with your own logins. Exit codes: 0 all trusted; 1 one is untrusted; 2 the command line is wrong; 3
    it could not be found out.
    """
    with cluster_told(as_json=output == "json"):
        found = run(_verify(place, name, registries))
    if output == "json":
        click.echo(json.dumps([one.document() for one in found], indent=2))
    else:
        click.echo("\n".join(line for one in found for line in one.lines()).rstrip())
    sys.exit(_exit_code([one.report for one in found]))


async def _verify(place: Place, name: str, registries: Registries) -> list[_Verified]:
    async with open_view(place) as view:
        revisions = revision_images(await view.model(name))
        if not revisions:
            raise NotThere(f"the EdgeModel {name} has no image yet: look at its conditions")
        policies, exemptions = await view.policies(), await view.exemptions()
        return [
            _Verified(revision, await verify_one(view, image, policies, exemptions, registries))
            for revision in revisions
            for image in revision.images
        ]


async def verify_one(
    view: ClusterView,
    image: Reference,
    policies: tuple[AnyPolicy, ...],
    exemptions: tuple[Exemption, ...],
    registries: Registries,
) -> VerifyReport:
    """Hold one image, by digest, against the policies that speak about it in the namespace."""
    namespace = view.place.namespace
    matching = matching_policies(policies, image.name, namespace)
    verifier = PolicyVerifier(view.authorities)
    async with registry_client(image, registries) as client:
        checks = [
            _broken(policy)
            if isinstance(policy, BrokenPolicy)
            else await check_policy(verifier, client, image, policy)
            for policy in matching
        ]
    missing = "" if checks else no_policy_sentence(image.name, namespace)
    failed = frozenset(
        policy.name
        for policy, check in zip(matching, checks, strict=True)
        if check.state is not State.TRUSTED
    )
    if failed or not checks:
        excuse = choose_exemption(exemptions, str(image), namespace, failed, datetime.now(UTC))
        missing = "; ".join(filter(None, (missing, excuse.sentence if excuse else "")))
    return VerifyReport(str(image), tuple(checks), missing)


def _broken(policy: BrokenPolicy) -> Check:
    title = f'TrustPolicy "{policy.name}"'
    return Check(title, None, unknown=f"the policy itself cannot be understood ({policy.problem})")


def _exit_code(reports: list[VerifyReport]) -> int:
    """One image that is untrusted decides, also when others could not be looked at."""
    codes = {report.exit_code for report in reports}
    return 1 if 1 in codes else max(codes, default=0)
