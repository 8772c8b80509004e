"""Signing images in their registries, and finding again what was signed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from edgemodel_operator.adapters.attested import attest_documents, renew_attestations
from edgemodel_operator.adapters.registries import Credentials, Registries
from edgemodel_operator.adapters.signed_images import find_signed
from edgemodel_operator.core.supply import BuiltImage, SupplyError
from edgemodel_operator.core.world import SupplyStep
from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.signing.demand import Authority, Demand
from edgemodel_operator.signing.errors import SigningError
from edgemodel_operator.signing.keys import Signer
from edgemodel_operator.signing.sign import sign_image
from edgemodel_operator.signing.verdict import Trusted
from edgemodel_operator.signing.verify import verify_image


class SigningKeys(Protocol):
    """Where the keys are that sign now."""

    async def signers(self) -> tuple[Signer, ...]:
        """Give all of them; raises SupplyError and KubeError."""
        ...


class ImageSigner:
    """Signs images with every key that signs now, and knows again what any of them signed."""

    def __init__(self, keys: SigningKeys, registries: Registries) -> None:
        self._keys = keys
        self._registries = registries

    async def fingerprints(self) -> frozenset[str]:
        """Name the keys that sign now. Raises SupplyError and KubeError."""
        return frozenset(signer.public_key.fingerprint for signer in await self._keys.signers())

    async def sign(self, built: BuiltImage, credentials: Credentials) -> None:
        """Attest the documents of an image, then sign its index and platforms; twice adds nothing.

        The signatures come last: an image that carries them is complete. Raises SupplyError and KubeError.
        """
        signers = await self._keys.signers()
        client, image = self._registries.client(credentials), parse_reference(built.image)
        with _told(SupplyStep.SIGN):
            if built.documents:
                await attest_documents(client, image, built.documents, signers)
            elif len(signers) > 1:
                await renew_attestations(client, image, signers)
            await sign_image(client, image, signers)

    async def renew(self, name: str, credentials: Credentials) -> bool:
        """Have every key attest and sign what one of them signed before; false if none has.

        Raises SupplyError and KubeError.
        """
        signers = await self._keys.signers()
        ours = Authority("operator", tuple(signer.public_key for signer in signers))
        client, image = self._registries.client(credentials), parse_reference(name)
        with _told(SupplyStep.SIGN):
            verdict = await verify_image(client, image, Demand((ours,), platforms_signed=True))
            if not isinstance(verdict, Trusted):
                return False
            await renew_attestations(client, image, signers)
            await sign_image(client, image, signers)
            return True

    async def find(self, repository: str, build_key: str, credentials: Credentials) -> BuiltImage | None:
        """Give the complete image of a build key that one of our keys signed, if any.

        Raises SupplyError and KubeError.
        """
        keys = [signer.public_key for signer in await self._keys.signers()]
        with _told(SupplyStep.PREPARE):
            client = self._registries.client(credentials)
            return await find_signed(client, parse_reference(repository), build_key, keys)


@contextmanager
def _told(step: SupplyStep) -> Iterator[None]:
    """Tell what goes wrong in the block as a SupplyError of a step."""
    try:
        yield
    except SigningError as error:
        raise SupplyError(step, "SigningFailed", str(error)) from error
    except RegistryError as error:
        raise SupplyError(step, "RegistryUnavailable", str(error)) from error
