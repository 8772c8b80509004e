"""`edgemodel sign`: sign an image in a registry, and attest things about it, from a shell."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import click

from edgemodel_operator.cli.keyless_signing import KeylessOptions, keyless_signing
from edgemodel_operator.cli.outcome import run, told
from edgemodel_operator.cli.password import password_for
from edgemodel_operator.cli.registry import (
    Registries,
    parse_registry_image,
    pin,
    registry_client,
    registry_options,
)
from edgemodel_operator.oci.descriptor import Descriptor
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.attest import Attestation, attest_digest
from edgemodel_operator.signing.command_signer import CommandSigner
from edgemodel_operator.signing.keys import Signer, load_private_key, load_public_key
from edgemodel_operator.signing.sign import BOTH, SignedDigest, sign_image
from edgemodel_operator.signing.verdict import Format

FORMATS = {
    "Both": BOTH,
    "Legacy": frozenset({Format.LEGACY}),
    "Bundle": frozenset({Format.BUNDLE}),
}
PREDICATE_TYPES = {
    "slsaprovenance02": "https://slsa.dev/provenance/v0.2",
    "slsaprovenance1": "https://slsa.dev/provenance/v1",
    "spdxjson": "https://spdx.dev/Document",
    "cyclonedx": "https://cyclonedx.org/bom",
    "link": "https://in-toto.io/Link/v1",
    "openvex": "https://openvex.dev/ns",
    "vuln": "https://cosign.sigstore.dev/attestation/vuln/v1",
}
"""The short names that cosign has for predicate types."""
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


class Signing(Protocol):
    """Somebody who signs: with keys, or with an identity."""

    async def sign(self, client: RegistryClient, image: Reference) -> tuple[SignedDigest, ...]:
        """Sign what `image` names by digest."""
        ...

    async def attest(
        self,
        client: RegistryClient,
        image: Reference,
        subject: Descriptor,
        attestations: Sequence[Attestation],
    ) -> frozenset[Format]:
        """Attest about one manifest, and tell in which formats something was written."""
        ...


@dataclass(frozen=True)
class KeySigning:
    """Signs with keys; each signs everything."""

    signers: tuple[Signer, ...]
    formats: frozenset[Format]

    async def sign(self, client: RegistryClient, image: Reference) -> tuple[SignedDigest, ...]:
        """Sign what `image` names by digest."""
        return await sign_image(client, image, self.signers, formats=self.formats)

    async def attest(
        self,
        client: RegistryClient,
        image: Reference,
        subject: Descriptor,
        attestations: Sequence[Attestation],
    ) -> frozenset[Format]:
        """Attest about one manifest."""
        return await attest_digest(client, image, subject, attestations, self.signers, self.formats)


@dataclass(frozen=True)
class Options:
    """The command line."""

    image: str
    keys: tuple[Path, ...]
    command: str | None
    public_key: Path | None
    identity_token: Path | None
    trust_config: Path | None
    trusted_root: Path | None
    fulcio_url: str | None
    rekor_url: str | None
    timestamp_url: str | None
    format_name: str
    attestations: tuple[str, ...]
    registries: Registries
    as_json: bool


@dataclass(frozen=True)
class Order:
    """What to sign, by whom, and what to say besides."""

    image: Reference
    signing: Signing
    attestations: tuple[Attestation, ...]
    registries: Registries


@dataclass(frozen=True)
class Signed:
    """What was done: the image by digest, each digest in it, and the formats of new attestations."""

    image: Reference
    digests: tuple[SignedDigest, ...]
    attested: frozenset[Format]


@click.command("sign")
@click.argument("image")
@click.option("--key", "keys", type=_FILE, multiple=True, metavar="FILE",
              help="A private key in cosign's encrypted format. Repeatable: with several, each signs "
              "everything.")  # fmt: skip
@click.option("--signer-command", "command", metavar="COMMAND",
              help="A program that signs: it gets a SHA-256 (32 bytes) on standard input and writes the "
              "signature as base64.")  # fmt: skip
@click.option("--public-key", type=_FILE, metavar="FILE", help="The public key of the --signer-command.")
@click.option("--identity-token", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE",
              help="Sign without a key, as whom this token is for; `-`: standard input.")  # fmt: skip
@click.option("--trust-config", type=_FILE, metavar="FILE",
              help="The services for --identity-token: a client trust config of Sigstore.")  # fmt: skip
@click.option("--trusted-root", type=_FILE, metavar="FILE",
              help="In its place: what the answers of the services are verified under,")  # fmt: skip
@click.option("--fulcio-url", metavar="URL", help="the certificate authority,")
@click.option("--rekor-url", metavar="URL", help="the transparency log (Rekor 2),")
@click.option("--timestamp-url", metavar="URL", help="and the timestamp authority.")
@click.option("--format", "format_name", type=click.Choice(list(FORMATS)), default="Both", show_default=True,
              help="cosign 2 reads Legacy, cosign 3 both.")  # fmt: skip
@click.option("--attestation", "attestations", multiple=True, metavar="TYPE=FILE",
              help="A JSON document to attest about the image; its type is a URI, or one of "
              f"{', '.join(PREDICATE_TYPES)}. Repeatable.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@registry_options
def sign_command(**given: Any) -> None:
    """Sign IMAGE, and all platforms of an index, as `cosign sign --recursive` does.

    IMAGE is `host/repository@sha256:…`, or with a tag, which is asked for once: the digest that is signed is
    printed. Signing again adds nothing. The password of the keys is that in COSIGN_PASSWORD, or is asked for.
    Nothing but the registry is contacted, and the services that are named for --identity-token. Exit codes:
    0 signed; 1 failed, and somebody must change something; 2 the command line or a file is wrong; 3 failed,
    and trying again may help.
    """
    options = Options(**given)
    with told(as_json=options.as_json):
        signed = run(_sign(_order(options)))
    if options.as_json:
        click.echo(json.dumps(_document(signed), indent=2))
        return
    click.echo(str(signed.image))
    for line in _lines(signed):
        click.echo(line, err=True)


def _order(options: Options) -> Order:
    place = parse_registry_image(options.image)
    said = tuple(_attestation(text) for text in options.attestations)
    signing = _keyless(options) if options.identity_token is not None else _keys(options)
    return Order(place, signing, said, options.registries)


def _keyless(options: Options) -> Signing:
    if options.keys or options.command is not None:
        raise click.UsageError("sign either with keys or with --identity-token, one after the other")
    if options.format_name == "Legacy":
        raise click.UsageError("--identity-token makes bundles: leave --format away")
    given = {field.name: getattr(options, field.name) for field in fields(KeylessOptions)}
    return keyless_signing(KeylessOptions(**given))


def _keys(options: Options) -> Signing:
    if (options.command is None) != (options.public_key is None):
        raise click.UsageError("--signer-command and --public-key belong together: give both")
    if any((options.trust_config, options.trusted_root, options.fulcio_url, options.rekor_url)):
        raise click.UsageError("a key needs no services: they go with --identity-token")
    if not options.keys and options.command is None:
        raise click.UsageError(
            "say who signs: give --key FILE, or --signer-command and --public-key, or --identity-token FILE"
        )
    signers: list[Signer] = [
        load_private_key(key.read_bytes(), password_for(str(key))) for key in options.keys
    ]
    if options.command is not None and options.public_key is not None:
        public = load_public_key(options.public_key.read_bytes())
        signers.append(CommandSigner(_words(options.command), public))
    return KeySigning(tuple(signers), FORMATS[options.format_name])


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise click.UsageError(f"--signer-command: {error}") from None


def _attestation(text: str) -> Attestation:
    kind, equals, file = text.partition("=")
    if not equals or not kind or not file:
        raise click.UsageError(f"--attestation {text}: write TYPE=FILE, as in spdxjson=sbom.spdx.json")
    return Attestation(PREDICATE_TYPES.get(kind, kind), Path(file).read_bytes())


async def _sign(order: Order) -> Signed:
    async with registry_client(order.image, order.registries) as client:
        image = await pin(client, order.image)
        digests = await order.signing.sign(client, image)
        attested: frozenset[Format] = frozenset()
        if order.attestations:
            attested = await order.signing.attest(client, image, digests[0].descriptor, order.attestations)
        return Signed(image, digests, attested)


def _lines(signed: Signed) -> list[str]:
    lines = []
    for one in signed.digests:
        platform = f" ({one.platform})" if one.platform else ""
        done = f"signed, {' and '.join(sorted(one.added))}" if one.added else "was signed already"
        lines.append(f"  {one.digest}{platform}: {done}")
    if signed.attested:
        lines.append(f"  attested, {' and '.join(sorted(signed.attested))}")
    return lines


def _document(signed: Signed) -> dict[str, Any]:
    return {
        "image": str(signed.image),
        "signed": [
            {"digest": one.digest, "platform": one.platform, "added": sorted(one.added)}
            for one in signed.digests
        ],
        "attested": sorted(signed.attested),
    }
