"""Signing images in their registries, and finding again what was signed."""

from __future__ import annotations

from typing import Protocol

from edgemodel_operator.adapters.attested import attest_documents, renew_attestations
from edgemodel_operator.adapters.registries import Credentials, Registries
from edgemodel_operator.adapters.signed_images import find_signed
from edgemodel_operator.core.supply import BuiltImage, SupplyError
from edgemodel_operator.core.world import SupplyStep
from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.signing.errors import SigningError
from edgemodel_operator.signing.keys import Signer
from edgemodel_operator.signing.sign import sign_image


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

    async def sign(self, built: BuiltImage, credentials: Credentials) -> None:
        """Attest the documents of an image, then sign its index and platforms; twice adds nothing.

        The signatures come last: an image that carries them is complete. Raises SupplyError and KubeError.
        """
        signers = await self._keys.signers()
        client, image = self._registries.client(credentials), parse_reference(built.image)
        try:
            if built.documents:
                await attest_documents(client, image, built.documents, signers)
            elif len(signers) > 1:
                await renew_attestations(client, image, signers)
            await sign_image(client, image, signers)
        except SigningError as error:
            raise SupplyError(SupplyStep.SIGN, "SigningFailed", str(error)) from error
        except RegistryError as error:
            raise SupplyError(SupplyStep.SIGN, "RegistryUnavailable", str(error)) from error

    async def find(self, repository: str, build_key: str, credentials: Credentials) -> BuiltImage | None:
        """Give the complete image of a build key that one of our keys signed, if any.

        Raises SupplyError and KubeError.
        """
        keys = [signer.public_key for signer in await self._keys.signers()]
        try:
            client = self._registries.client(credentials)
            return await find_signed(client, parse_reference(repository), build_key, keys)
        except RegistryError as error:
            raise SupplyError(SupplyStep.PREPARE, "RegistryUnavailable", str(error)) from error
