"""`edgemodel sign`: sign an image in a registry, and attest things about it, from a shell."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edgemodel_operator.cli.outcome import run, told
from edgemodel_operator.cli.password import password_for
from edgemodel_operator.cli.registry import parse_registry_image, pin, registry_client
from edgemodel_operator.oci.reference import Reference
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


@dataclass(frozen=True)
class Order:
    """What to sign, by whom, and what to say besides."""

    image: Reference
    signers: tuple[Signer, ...]
    formats: frozenset[Format]
    attestations: tuple[Attestation, ...]
    plain_http: tuple[str, ...]


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
@click.option("--format", "format_name", type=click.Choice(list(FORMATS)), default="Both", show_default=True,
              help="cosign 2 reads Legacy, cosign 3 both.")  # fmt: skip
@click.option("--attestation", "attestations", multiple=True, metavar="TYPE=FILE",
              help="A JSON document to attest about the image; its type is a URI, or one of "
              f"{', '.join(PREDICATE_TYPES)}. Repeatable.")  # fmt: skip
@click.option("--plain-http", multiple=True, metavar="HOST[:PORT]",
              help="A registry that is spoken to without TLS. Repeatable.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def sign_command(**given: Any) -> None:
    """Sign IMAGE, and all platforms of an index, as `cosign sign --recursive` does.

    IMAGE is `host/repository@sha256:…`, or with a tag, which is asked for once: the digest that is signed is
    printed. Signing again adds nothing. The password of the keys is that in COSIGN_PASSWORD, or is asked for.
    Nothing but the registry is contacted. Exit codes: 0 signed; 1 failed, and somebody must change something;
    2 the command line or a file is wrong; 3 failed, and trying again may help.
    """
    as_json: bool = given.pop("as_json")
    with told(as_json=as_json):
        signed = run(_sign(_order(**given)))
    if as_json:
        click.echo(json.dumps(_document(signed), indent=2))
        return
    click.echo(str(signed.image))
    for line in _lines(signed):
        click.echo(line, err=True)


def _order(  # noqa: PLR0913 - one for each option
    *,
    image: str,
    keys: Sequence[Path],
    command: str | None,
    public_key: Path | None,
    format_name: str,
    attestations: Sequence[str],
    plain_http: tuple[str, ...],
) -> Order:
    if (command is None) != (public_key is None):
        raise click.UsageError("--signer-command and --public-key belong together: give both")
    if not keys and command is None:
        raise click.UsageError("say who signs: give --key FILE, or --signer-command and --public-key")
    place = parse_registry_image(image)
    said = tuple(_attestation(text) for text in attestations)
    signers: list[Signer] = [load_private_key(key.read_bytes(), password_for(str(key))) for key in keys]
    if command is not None and public_key is not None:
        signers.append(CommandSigner(_words(command), load_public_key(public_key.read_bytes())))
    return Order(place, tuple(signers), FORMATS[format_name], said, plain_http)


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
    async with registry_client(order.image, order.plain_http) as client:
        image = await pin(client, order.image)
        digests = await sign_image(client, image, order.signers, formats=order.formats)
        attested: frozenset[Format] = frozenset()
        if order.attestations:
            subject = digests[0].descriptor
            attested = await attest_digest(
                client, image, subject, order.attestations, order.signers, order.formats
            )
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
