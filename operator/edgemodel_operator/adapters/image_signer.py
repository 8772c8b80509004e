"""Signing images in their registries, and finding again what was signed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from edgemodel_operator.adapters.attested import attest_documents, renew_attestations
from edgemodel_operator.adapters.registries import Credentials, Registries
from edgemodel_operator.adapters.signed_images import find_signed
from edgemodel_operator.core.supply import BuiltImage, SupplyError
from edgemodel_operator.core.world import SupplyStep
from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.reference import InvalidReference, parse_reference
from edgemodel_operator.signing.demand import Authority, Demand
from edgemodel_operator.signing.errors import SigningError
from edgemodel_operator.signing.keys import Signer
from edgemodel_operator.signing.sign import sign_image
from edgemodel_operator.signing.verdict import Trusted
from edgemodel_operator.signing.verify import verify_image

LIMIT_SECONDS = 1800.0
"""For all that is read and written of one image: a registry that is ever so slow must not hold a builder."""


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
        client = self._registries.client(credentials)
        async with _told(SupplyStep.SIGN):
            image = parse_reference(built.image)
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
        client = self._registries.client(credentials)
        async with _told(SupplyStep.SIGN):
            image = parse_reference(name)
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
        async with _told(SupplyStep.PREPARE):
            client = self._registries.client(credentials)
            return await find_signed(client, parse_reference(repository), build_key, keys)


@asynccontextmanager
async def _told(step: SupplyStep) -> AsyncIterator[None]:
    """Tell what goes wrong in the block, and what never ends, as a SupplyError of a step."""
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            yield
    except TimeoutError as error:
        message = f"The registry did not come to an end within {LIMIT_SECONDS / 60:.0f} minutes."
        raise SupplyError(step, "RegistryUnavailable", message) from error
    except SigningError as error:
        raise SupplyError(step, "SigningFailed", str(error)) from error
    except InvalidReference as error:
        raise SupplyError(step, "InvalidSpec", str(error), needs_person=True) from error
    except RegistryError as error:
        raise SupplyError(step, "RegistryUnavailable", str(error)) from error
