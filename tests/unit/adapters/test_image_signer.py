"""Signing: a name that cannot be read is told as a sentence for people, not as a bug."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.adapters.image_signer import LIMIT_SECONDS, ImageSigner
from edgemodel_operator.adapters.registries import Registries
from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.core.supply import BuiltImage, SupplyError
from edgemodel_operator.signing.keys import LocalKey
from support.virtual_time import run_in_virtual_time, seconds


class NoKeys:
    async def signers(self) -> tuple[Any, ...]:
        return ()


async def test_a_repository_without_a_registry_is_the_mistake_of_a_person() -> None:
    signer = ImageSigner(NoKeys(), Registries(cast("Any", None), ()))
    with pytest.raises(SupplyError, match="names no registry") as told:
        await signer.find("registry/models/x", "5c" * 32, {})
    assert (told.value.reason, told.value.needs_person) == ("InvalidSpec", True)


class OneKey:
    async def signers(self) -> tuple[Any, ...]:
        return (LocalKey(ec.generate_private_key(ec.SECP256R1())),)


class Stuck:
    """A registry that says something again and again, and never the end."""

    def client(self, _: object) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        async def never(*_: object, **__: object) -> None:
            while True:
                await asyncio.sleep(50)

        return never


@pytest.mark.parametrize("what", ["find", "sign", "renew"])
def test_a_registry_that_never_ends_is_given_up(what: str) -> None:
    image = f"registry.example.com/models/line@sha256:{'a' * 64}"
    built = BuiltImage(image, ("linux/amd64",), build_key="1", report=ModelReport())

    async def scene() -> float:
        signer = ImageSigner(OneKey(), cast("Registries", Stuck()))
        arguments: dict[str, tuple[Any, ...]] = {
            "find": ("registry.example.com/models/line", "5c" * 32, {}),
            "sign": (built, {}),
            "renew": (image, {}),
        }
        with pytest.raises(SupplyError) as told:
            await getattr(signer, what)(*arguments[what])
        assert told.value.reason == "RegistryUnavailable"
        return seconds()

    assert run_in_virtual_time(scene()) == LIMIT_SECONDS
