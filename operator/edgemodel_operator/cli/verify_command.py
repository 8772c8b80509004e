"""`edgemodel verify`: hold an image against keys or TrustPolicies, and say step by step what was found."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edgemodel_operator.adapters.authorities import AuthorityStore
from edgemodel_operator.adapters.policy_verifier import (
    CannotVerify,
    KeyUnavailable,
    PolicyVerifier,
    conclude,
)
from edgemodel_operator.api.trustpolicy import Mode
from edgemodel_operator.cli.documents import InvalidDocuments, read_documents
from edgemodel_operator.cli.local_authorities import ANY, LocalObjects
from edgemodel_operator.cli.outcome import Exit, end, run, told
from edgemodel_operator.cli.registry import (
    Registries,
    parse_registry_image,
    pin,
    registry_client,
    registry_options,
)
from edgemodel_operator.cli.verify_report import Check, VerifyReport
from edgemodel_operator.core.trust import Policy, matching_policies, no_policy_sentence
from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.demand import Authority, Demand
from edgemodel_operator.signing.keys import SECRET_PUBLIC_KEY, load_public_key

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@dataclass(frozen=True)
class Question:
    """What is asked about an image: either of keys, or of policies and in which namespace its pods run."""

    image: Reference
    registries: Registries
    demand: Demand | None
    policies: tuple[Policy, ...]
    authorities: AuthorityStore
    namespace: str


@click.command("verify")
@click.argument("image")
@click.option("--key", "keys", type=_FILE, multiple=True, metavar="FILE",
              help="A public key; a signature by any of them will do. Repeatable.")  # fmt: skip
@click.option("--policy", "policies", type=click.Path(path_type=Path, allow_dash=True), multiple=True,
              metavar="FILE",
              help="TrustPolicies as applied to the cluster, and the Secrets and ConfigMaps that they name; "
              "`-`: standard input. Every policy that matches must hold. Repeatable.")  # fmt: skip
@click.option("--namespace", default="default", show_default=True,
              help="Where the image is to run, for policies that are limited to namespaces.")  # fmt: skip
@click.option("--secret", "secrets", multiple=True, metavar="NAME=FILE",
              help="The public key that a policy takes from a Secret. Repeatable.")  # fmt: skip
@click.option("--trusted-root", "roots", multiple=True, metavar="[NAME=]FILE",
              help="The trusted root that policies take from a ConfigMap; without a name, for all of "
              "them.")  # fmt: skip
@click.option("--accept-copies", is_flag=True,
              help="With --key: let signatures count that name another repository, or none, as those of "
              "cosign 3.")  # fmt: skip
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="How the steps are printed.")  # fmt: skip
@registry_options
def verify_command(**given: Any) -> None:
    """Verify IMAGE as the cluster would, and print each step with what was found.

    IMAGE is `host/repository@sha256:…`, or with a tag, which is asked for once. Nothing but the registry is
    contacted. Exit codes: 0 trusted; 1 untrusted; 2 the command line or a file is wrong; 3 it could not be
    found out.
    """
    as_json = given.pop("output") == "json"
    with told(as_json=as_json):
        question = _question(**given)
        try:
            report = run(_answer(question))
        except RegistryError as error:
            end(Exit.TRY_AGAIN, str(error), type(error).__name__, as_json=as_json)
    click.echo(json.dumps(report.document(), indent=2) if as_json else "\n".join(report.lines()))
    sys.exit(report.exit_code)


def _question(  # noqa: PLR0913 - one for each option
    *,
    image: str,
    keys: Sequence[Path],
    policies: Sequence[Path],
    namespace: str,
    secrets: Sequence[str],
    roots: Sequence[str],
    accept_copies: bool,
    registries: Registries,
) -> Question:
    if bool(keys) == bool(policies):
        raise click.UsageError("say whose word counts: give either --key FILE or --policy FILE")
    if accept_copies and policies:
        raise click.UsageError("--accept-copies goes with --key; a policy says `acceptCopies` itself")
    documents = read_documents(policies)
    read = tuple(Policy(name, spec) for name, spec in sorted(documents.policies.items()))
    if policies and not read:
        raise InvalidDocuments("the files hold no TrustPolicy")
    objects = LocalObjects(
        secrets={
            **{name: data.get(SECRET_PUBLIC_KEY, b"") for name, data in documents.secrets.items()},
            **_named_files(secrets, "--secret NAME=FILE"),
        },
        config_maps=documents.config_maps,
        trusted_roots=_named_files(roots, "--trusted-root NAME=FILE", unnamed=ANY),
    )
    return Question(
        image=parse_registry_image(image),
        registries=registries,
        demand=_demand(keys, accept_copies=accept_copies) if keys else None,
        policies=read,
        authorities=objects.store(read),
        namespace=namespace,
    )


def _demand(keys: Sequence[Path], *, accept_copies: bool) -> Demand:
    authorities = tuple(Authority(str(key), (load_public_key(key.read_bytes()),)) for key in keys)
    return Demand(authorities, any_repository=accept_copies)


def _named_files(texts: Sequence[str], wanted: str, unnamed: str | None = None) -> Mapping[str, bytes]:
    found = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals and unnamed is not None:
            name, file = unnamed, text
        elif not name or not file:
            raise click.UsageError(f"{text}: write {wanted}")
        found[name] = Path(file).read_bytes()
    return found


async def _answer(question: Question) -> VerifyReport:
    async with registry_client(question.image, question.registries) as client:
        image = await pin(client, question.image)
        verifier = PolicyVerifier(question.authorities)
        if question.demand is not None:
            check = await _check_keys(verifier, client, image, question.demand)
            return VerifyReport(str(image), (check,))
        matching = matching_policies(question.policies, image.name, question.namespace)
        checks = [
            await check_policy(verifier, client, image, policy)
            for policy in matching
            if isinstance(policy, Policy)
        ]
        missing = "" if checks else no_policy_sentence(image.name, question.namespace)
        return VerifyReport(str(image), tuple(checks), missing)


async def _check_keys(
    verifier: PolicyVerifier, client: RegistryClient, image: Reference, demand: Demand
) -> Check:
    title = "the keys " + ", ".join(authority.name for authority in demand.authorities)
    try:
        return Check(title, await verifier.examine(client, image, demand))
    except CannotVerify as error:
        return Check(title, None, unknown=str(error))


async def check_policy(
    verifier: PolicyVerifier, client: RegistryClient, image: Reference, policy: Policy
) -> Check:
    """Hold an image, by digest, against one policy, for printing; what cannot be found out is part of it."""
    title = f'TrustPolicy "{policy.name}"'
    asked = await verifier.demand_of(policy)
    notes = [problem.message for problem in asked.problems]
    try:
        verdict = await verifier.examine(client, image, asked.demand)
    except CannotVerify as error:
        return Check(title, None, str(error), tuple(notes))
    if not verdict.trusted and policy.spec.mode is Mode.AUDIT:
        notes.append("the policy is in Audit mode: the cluster admits the image with a warning")
    try:
        conclude(image, policy, asked, verdict)
    except KeyUnavailable as error:
        return Check(title, verdict, str(error), tuple(notes))
    return Check(title, verdict, notes=tuple(notes))
