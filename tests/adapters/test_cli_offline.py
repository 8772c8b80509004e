"""Signing and verifying from a shell, with cosign beside it, where there is no network at all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.tools import tool
from support.cut_off import CutOff, cut_off
from support.registry_kinds import Kind

TESTS = Path(__file__).parents[1]
PASSWORD = {"COSIGN_PASSWORD": "from a test"}
PROVENANCE = {
    "buildDefinition": {"buildType": "https://edgemodel.dev/build/v1", "externalParameters": {}},
    "runDetails": {"builder": {"id": "https://edgemodel.dev/builder/v1"}},
}


@dataclass(frozen=True)
class Site:
    """A folder, a registry, and nothing else."""

    place: CutOff
    folder: Path
    image: str
    child: str

    @property
    def host(self) -> str:
        return self.image.partition("/")[0]

    @property
    def repository(self) -> str:
        return self.image.rpartition(":")[0]

    def edgemodel(self, *arguments: str, status: int = 0) -> str:
        command = (sys.executable, "-m", "edgemodel_operator", "cli", *arguments)
        return self.place.run(*command, folder=self.folder, status=status, env=PASSWORD)

    def cosign(self, version: str, *arguments: str) -> str:
        env = {**PASSWORD, "HOME": str(self.folder)}
        return self.place.run(str(tool(version)), *arguments, folder=self.folder, env=env)


@pytest.fixture(params=[Kind.DISTRIBUTION_2, Kind.OCI_1_1])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    for program in ("cosign-v2", "cosign-v3", "ociregistry"):
        tool(program)
    with cut_off(tmp_path) as place:
        command = [sys.executable, "-m", "support.registry_process", request.param.value, str(tmp_path / "r")]
        with subprocess.Popen(
            place.command(*command, folder=TESTS),
            env={
                "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/bin",
                "PYTHONPATH": f"{TESTS}:{TESTS.parent / 'hack'}",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            image, child = server.stdout.readline().split()
            yield Site(place, tmp_path, image, child)
            server.stdin.close()
            server.wait(timeout=20)


def test_case_18_keys_signatures_and_attestations_need_no_network_and_no_name(site: Site) -> None:
    (site.folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    # That the book is kept: a look-up by somebody else is in it, and nothing is added from here on.
    said = site.place.run("getent", "hosts", "registry.plant-a.local", folder=site.folder, status=None)
    before = site.place.looked_up()
    assert "registry.plant-a.local" in before, said
    plain = ("--plain-http", site.host)
    site.edgemodel("keygen", "--output-dir", ".")
    said = site.edgemodel(
        *("sign", "--key", "cosign.key", "--attestation", "slsaprovenance1=provenance.json"),
        *plain,
        site.image,
    )
    index = said.splitlines()[0]
    assert index.startswith(f"{site.repository}@sha256:")
    assert site.edgemodel("verify", "--key", "cosign.pub", *plain, site.image).startswith(index)
    assert site.place.looked_up() == before

    # Cosign 3, and 2.6 with the empty trusted root that it wants beside bundles.
    site.cosign("cosign-v2", "trusted-root", "create", "--out", "root.json")
    known = ("--key", "cosign.pub", "--insecure-ignore-tlog=true", "--trusted-root", "root.json")
    child = f"{site.repository}@{site.child}"
    for version in ("cosign-v2", "cosign-v3"):
        for image in (index, child):
            site.cosign(version, "verify", *known, image)
        site.cosign(version, "verify-attestation", *known, "--type", "slsaprovenance1", index)
    assert site.place.looked_up() == before

    # And the other way: keys and signatures of cosign, of both lines.
    bound = f"dev.edgemodel.repository={site.repository}"
    site.cosign("cosign-v3", "signing-config", "create", "--out", "services.json")
    for version, services in (
        ("cosign-v2", ("--tlog-upload=false",)),
        ("cosign-v3", ("--signing-config", "services.json")),
    ):
        site.cosign(version, "generate-key-pair", "--output-key-prefix", version)
        site.cosign(version, "sign", "--yes", "--key", f"{version}.key", "-a", bound, *services, index)
    before = site.place.looked_up()
    for version in ("cosign-v2", "cosign-v3"):
        site.edgemodel("verify", "--key", f"{version}.pub", *plain, index)
        site.edgemodel("sign", "--key", f"{version}.key", *plain, child)
        site.edgemodel("verify", "--key", f"{version}.pub", *plain, child)
    assert site.place.looked_up() == before
