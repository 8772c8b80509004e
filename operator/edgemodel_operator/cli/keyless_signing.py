"""Signing for somebody without a key: with an identity token, by services that the command line names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgemodel_operator.oci.descriptor import Descriptor
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.attest import Attestation
from edgemodel_operator.signing.sign import SignedDigest
from edgemodel_operator.signing.verdict import Format

if TYPE_CHECKING:
    from edgemodel_operator.signing.keyless_sign import KeylessSigner

MAX_TOKEN_BYTES = 64 * 1024
_WHERE = (
    "say which services to use: --trust-config FILE, or --trusted-root FILE with --fulcio-url, --rekor-url "
    "and --timestamp-url; nothing is contacted by default"
)


@dataclass(frozen=True)
class KeylessOptions:
    """What the command line says of keyless signing; `identity_token` is a file, or `-`."""

    identity_token: Path
    trust_config: Path | None
    trusted_root: Path | None
    fulcio_url: str | None
    rekor_url: str | None
    timestamp_url: str | None


@dataclass(frozen=True)
class KeylessSigning:
    """Signs in the name of whom a token is for. Always as bundles."""

    signer: KeylessSigner

    async def sign(self, client: RegistryClient, image: Reference) -> tuple[SignedDigest, ...]:
        """Sign what `image` names by digest."""
        from edgemodel_operator.signing.keyless_sign import sign_image_keyless  # noqa: PLC0415 - see below

        return await sign_image_keyless(client, image, self.signer)

    async def attest(
        self,
        client: RegistryClient,
        image: Reference,
        subject: Descriptor,
        attestations: Sequence[Attestation],
    ) -> frozenset[Format]:
        """Attest about one manifest."""
        from edgemodel_operator.signing.keyless_sign import attest_digest_keyless  # noqa: PLC0415

        added = await attest_digest_keyless(client, image, subject, attestations, self.signer)
        return frozenset({Format.BUNDLE}) if added else frozenset()


def keyless_signing(options: KeylessOptions) -> KeylessSigning:
    """Prepare to sign; nothing is contacted yet. Raises SigningError and click.UsageError."""
    # Half a second to import, which signing with a key does not take.
    from edgemodel_operator.signing.keyless_services import load_services  # noqa: PLC0415
    from edgemodel_operator.signing.keyless_sign import KeylessSigner  # noqa: PLC0415

    services = load_services(_trust_config(options))
    return KeylessSigning(KeylessSigner(services, _read_token(options.identity_token)))


def _trust_config(options: KeylessOptions) -> bytes:
    from edgemodel_operator.signing.keyless_services import describe_services  # noqa: PLC0415

    given = (options.trusted_root, options.fulcio_url, options.rekor_url)
    if options.trust_config is not None:
        if any((*given, options.timestamp_url)):
            raise click.UsageError("--trust-config names all services: leave the other options away")
        return options.trust_config.read_bytes()
    if options.trusted_root is None or options.fulcio_url is None or options.rekor_url is None:
        raise click.UsageError(_WHERE)
    return describe_services(
        options.trusted_root.read_bytes(),
        fulcio=options.fulcio_url,
        rekor=options.rekor_url,
        timestamps=options.timestamp_url,
    )


def _read_token(path: Path) -> str:
    if str(path) == "-":
        data = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 1)
    else:
        with path.open("rb") as file:
            data = file.read(MAX_TOKEN_BYTES + 1)
    try:
        if len(data) <= MAX_TOKEN_BYTES:
            return data.decode("ascii").strip()
    except UnicodeDecodeError:
        pass
    raise click.UsageError(f"{path} holds no identity token: give the text that the login service issued")
