"""The real cosign, of the line 2.6 and the line 3.1, with a folder for its files and nothing configured.

Where it is not told otherwise, cosign looks for the services of its makers. Here it finds proxies that
refuse: what it needs of them fails, and what it does not need works as on a site without internet.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from cluster.tools import tool
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.signing.bundle import REPOSITORY_ANNOTATION
from edgemodel_operator.signing.keys import KeyPair
from support.registry import free_port

PASSWORD = "from a test"
VERSIONS = ("cosign-v2", "cosign-v3")


@dataclass(frozen=True)
class Ran:
    """How a run of cosign ended, and all that it said."""

    status: int
    said: str


@dataclass(frozen=True)
class Cosign:
    """One version of the program; `cosign.key` and `cosign.pub` lie in its folder."""

    program: Path
    folder: Path

    @property
    def is_2(self) -> bool:
        return self.program == tool("cosign-v2")

    async def run(self, *arguments: str, status: int | None = 0) -> Ran:
        """Run it to its end, and expect the exit status unless that is None."""
        nowhere = f"http://127.0.0.1:{free_port()}"
        process = await asyncio.create_subprocess_exec(
            str(self.program),
            *arguments,
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "COSIGN_PASSWORD": PASSWORD,
                "HTTP_PROXY": nowhere,
                "HTTPS_PROXY": nowhere,
                "NO_PROXY": "127.0.0.1",
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(120):
            output, _ = await process.communicate()
        ran = Ran(process.returncode or 0, output.decode(errors="replace"))
        assert status is None or ran.status == status, f"cosign {arguments}: {ran}"
        return ran

    async def verify(self, image: Reference, *options: str, status: int | None = 0) -> Ran:
        return await self.run("verify", *_WITH_KEY, *options, str(image), status=status)

    async def sign(self, image: Reference, *options: str) -> None:
        await self.run("sign", *await self._signing(), *options, str(image))

    async def attest(self, image: Reference, kind: str, predicate: str, *options: str) -> None:
        """Attest the content of a file."""
        said = ("--type", kind, "--predicate", predicate)
        await self.run("attest", *await self._signing(), *said, *options, str(image))

    async def verify_attestation(
        self, image: Reference, kind: str, *options: str, status: int | None = 0
    ) -> Ran:
        fixed = (*_WITH_KEY, "--type", kind)
        return await self.run("verify-attestation", *fixed, *options, str(image), status=status)

    async def empty_root(self) -> tuple[str, str]:
        """Give the option that satisfies cosign 2.6, which wants a trusted root for every bundle."""
        await self.run("trusted-root", "create", "--out", "root.json")
        return ("--trusted-root", "root.json")

    async def _signing(self) -> tuple[str, ...]:
        if self.is_2:
            return ("--key", "cosign.key", "--tlog-upload=false", "--yes")
        await self.run("signing-config", "create", "--out", "services.json")
        return ("--key", "cosign.key", "--signing-config", "services.json", "--yes")


def bound(image: Reference) -> tuple[str, ...]:
    """Give the option that has cosign name the repository, which its bundles else leave open."""
    return ("-a", f"{REPOSITORY_ANNOTATION}={image.name}")


_WITH_KEY = ("--key", "cosign.pub", "--insecure-ignore-tlog=true")


def cosign_of(version: str, folder: Path, pair: KeyPair) -> Cosign:
    """Prepare a cosign whose folder holds our key pair. Builds the program if it is not there yet."""
    (folder / "cosign.key").write_bytes(pair.private_pem)
    (folder / "cosign.pub").write_bytes(pair.public_pem)
    return Cosign(tool(version), folder)
