"""Sign without a key of one's own: with an identity token, and services of the user's choice.

A certificate authority (Fulcio) certifies a key that lives no longer than the command; each signature is
stamped by a timestamp authority and recorded in a transparency log (Rekor). What is signed is what signers
with keys sign, repository included, always as a bundle. Each bundle is verified under the trusted root before
it is published. Signing again as the same identity adds nothing, and contacts nobody.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TypeVar

from requests import HTTPError
from sigstore.dsse import Statement
from sigstore.oidc import IdentityError, IdentityToken
from sigstore.sign import Signer
from typing_extensions import override

from edgemodel_operator.oci.descriptor import Descriptor, canonical_json
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.attached import BundlePart, keep_bundles
from edgemodel_operator.signing.attest import Attestation, make_attestation
from edgemodel_operator.signing.bundle import MAX_BUNDLE_BYTES, SIGN_PREDICATE_TYPE, make_statement
from edgemodel_operator.signing.errors import (
    BadIdentity,
    FormatError,
    NotSignedKeyless,
    NotThisIdentity,
    SigningError,
)
from edgemodel_operator.signing.keyless_bundle import verify_bundle
from edgemodel_operator.signing.keyless_services import Services
from edgemodel_operator.signing.sign import SignedDigest, for_each_manifest
from edgemodel_operator.signing.stored import bundle_candidate, list_bundles
from edgemodel_operator.signing.verdict import Format

AUDIENCE = "sigstore"
"""For whom a login service must have made the token, unless the authority wants it otherwise."""

PATIENCE_S = 120.0
"""How long all services together may take for one signature; the library itself would wait for ever."""

_Made = TypeVar("_Made")


class KeylessSigner:
    """Signs statements in the name of whom an identity token is for. It never shows the token.

    The first signature gets a certificate; it serves for all of them, as long as it is valid (minutes).
    """

    def __init__(self, services: Services, token: str, *, audience: str = AUDIENCE) -> None:
        self._services = services
        self._token = token.strip()
        try:
            self._identity = IdentityToken(self._token, audience)
        except IdentityError as error:
            raise BadIdentity(
                f"the identity token cannot be used: {error}; it must be a token of a login service for the "
                f"audience {audience!r} that has not expired"
            ) from None
        self._signer: Signer | None = None
        self._one_at_a_time = asyncio.Lock()

    @property
    def issuer(self) -> str:
        """Name the login service, as the token does."""
        return self._identity.federated_issuer

    @property
    def subject(self) -> str:
        """Name whom the token is for; some authorities put another form of it into their certificates."""
        return self._identity.identity

    @override
    def __repr__(self) -> str:
        return f"KeylessSigner({self.subject!r}, {self.issuer!r})"

    async def sign(self, statement: bytes) -> bytes:
        """Return the bundle of an in-toto statement. Raises `NotSignedKeyless`."""
        async with self._one_at_a_time:
            made = await _without_waiting_for_ever(lambda: self._sign(statement))
        try:
            verify_bundle(made, self._services.root, lambda _issuer, _subject: None)
        except SigningError as error:
            raise NotSignedKeyless(
                f"what the services made does not verify under the trusted root: {error}"
            ) from None
        return made

    def has_made(self, bundle: bytes) -> bool:
        """Tell whether the bundle verifies, and names whom the token names."""

        def check(issuer: str, subject: str) -> None:
            if (issuer, subject) != (self.issuer, self.subject):
                raise NotThisIdentity(f"made by {subject!r} of {issuer!r}")

        try:
            verify_bundle(bundle, self._services.root, check)
        except SigningError:
            return False
        return True

    def _sign(self, statement: bytes) -> bytes:
        try:
            if self._signer is None:
                with self._services.new_context().signer(self._identity) as signer:
                    self._signer = signer
            return self._signer.sign_dsse(Statement(statement)).to_json().encode()
        except Exception as error:
            said = _reason(error).replace(self._token, "(the token)")
            raise NotSignedKeyless(f"the services for keyless signing did not sign: {said}") from None


async def sign_image_keyless(
    client: RegistryClient, image: Reference, signer: KeylessSigner
) -> tuple[SignedDigest, ...]:
    """Sign what `image` names by digest and, if that is an index, each manifest in it; the index comes first.

    Raises `NotSignable`, `NotSignedKeyless`, `SignatureLost` and `RegistryError`.
    """

    async def sign(subject: Descriptor) -> frozenset[Format]:
        statement = _with_name(make_statement(image.name, subject.digest), image.name)
        added = await _keep(client, image, subject, {statement: SIGN_PREDICATE_TYPE}, signer)
        return frozenset({Format.BUNDLE}) if added else frozenset()

    return await for_each_manifest(client, image, sign)


async def attest_digest_keyless(
    client: RegistryClient,
    image: Reference,
    subject: Descriptor,
    attestations: Sequence[Attestation],
    signer: KeylessSigner,
) -> bool:
    """Attest everything about the manifest `subject` in the repository of `image`; tell whether it was new.

    Raises `NotSignable`, `NotSignedKeyless`, `SignatureLost` and `RegistryError`.
    """
    statements = {
        make_attestation(image.name, subject.digest, one): one.predicate_type for one in attestations
    }
    return await _keep(client, image, subject, statements, signer)


async def _keep(
    client: RegistryClient,
    image: Reference,
    subject: Descriptor,
    statements: dict[bytes, str],
    signer: KeylessSigner,
) -> bool:
    """Sign and attach those statements (each with its predicate type) that are not there by this signer."""
    missing = dict(statements)
    listed = await list_bundles(client, image, subject.digest, max_bytes=MAX_BUNDLE_BYTES)
    for one in listed.stored:
        data = await client.get_blob(image, one.blob.digest, max_bytes=MAX_BUNDLE_BYTES)
        with suppress(FormatError):
            found = bundle_candidate(one.source, data)
            if found and found.payload in missing and signer.has_made(found.bundle):
                del missing[found.payload]
    made = [BundlePart(await signer.sign(statement), kind) for statement, kind in missing.items()]
    if made:
        await keep_bundles(client, image, subject, made)
    return bool(made)


def _with_name(statement: bytes, repository: str) -> bytes:
    """Name the statement's only subject: the library takes none without a name."""
    document = json.loads(statement)
    document["subject"][0]["name"] = repository
    return canonical_json(document)


def _reason(error: Exception) -> str:
    """Say what went wrong, also where the library keeps the service's answer to itself."""
    cause = error if isinstance(error, HTTPError) else error.__cause__
    if not isinstance(cause, HTTPError) or cause.response is None:
        return f"{type(error).__name__}: {str(error)[:512]}"
    said = cause.response.text
    with suppress(ValueError, KeyError, TypeError):
        said = json.loads(said)["message"]
    return f"{cause.response.url} answered {cause.response.status_code}: {said[:512]}"


async def _without_waiting_for_ever(work: Callable[[], _Made]) -> _Made:
    """Do blocking work in a thread that the program does not wait for when it ends."""
    done: Future[_Made] = Future()

    def run() -> None:
        with suppress(InvalidStateError):  # nobody waits any more
            try:
                done.set_result(work())
            except Exception as error:
                done.set_exception(error)

    threading.Thread(target=run, name="keyless-signing", daemon=True).start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.wrap_future(done)
    except TimeoutError:
        raise NotSignedKeyless(
            f"the services for keyless signing did not answer within {PATIENCE_S:g} s"
        ) from None
