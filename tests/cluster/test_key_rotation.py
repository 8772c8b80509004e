"""Two keys at once, as in the middle of a rotation: what the old one signed gets signatures of both."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.commands import CommandFailed, run
from cluster.tools import tool
from demo import objects
from demo.site import CHART, PUBLIC_KEY, RELEASE, SIGNING_KEY, SYSTEM, Site, is_true
from demo.story import Story

pytestmark = pytest.mark.needs("pods", "registry", "arm64", "cut", "npu")

NEXT_KEY, NEXT_PUBLIC = "line-key-2027", "line-public-2027"


@pytest.fixture
def next_key(site: Site) -> Iterator[None]:
    """Make the key that is to come; at the end everything is as it was."""
    made = run(
        [sys.executable, "-m", "edgemodel_operator", "cli", "keygen", "--name", NEXT_KEY,
         "--public-name", NEXT_PUBLIC, "--namespace", SYSTEM]
    )  # fmt: skip
    site.cluster.kubectl("apply", "-f", "-", stdin=made.encode())
    yield
    site.apply(objects.trust_policy(site.cluster.registry, PUBLIC_KEY))
    site.install()
    site.cluster.kubectl("delete", "secret", NEXT_KEY, NEXT_PUBLIC, "--namespace", SYSTEM)


def is_signed(site: Site, image: str, public: str, folder: Path) -> bool:
    """Ask cosign whether an image has a signature of a key."""
    key = folder / f"{public}.pem"
    key.write_bytes(base64.b64decode(site.get("secret", public, SYSTEM)["data"]["cosign.pub"]))
    argv = [
        str(tool("cosign-v3")), "verify", "--key", str(key), "--insecure-ignore-tlog=true",
        "--allow-http-registry=true", image,
    ]  # fmt: skip
    try:
        site.cluster.run_in_cp(["env", f"HOME={folder}", *argv])
    except CommandFailed:
        return False
    return True


def test_a_key_takes_over_from_another_while_the_models_run(
    story: Story, site: Site, next_key: None, tmp_path: Path
) -> None:
    story.ensure("1")
    running = story.pod_uids()
    image = site.get("edgemodel", objects.NAME, objects.NAMESPACE)["status"]["images"][0]["image"]
    assert is_signed(site, image, PUBLIC_KEY, tmp_path)
    assert not is_signed(site, image, NEXT_PUBLIC, tmp_path)

    site.helm(
        "upgrade", RELEASE, str(CHART), "--namespace", SYSTEM, "--reuse-values", "--wait",
        "--timeout", "180s", "--set", f"signing.secretNames={{{NEXT_KEY},{SIGNING_KEY}}}",
        "--set", f"trustPolicySecrets={{{NEXT_PUBLIC},{PUBLIC_KEY}}}",
    )  # fmt: skip
    site.wait(
        "the image has a signature of the new key",
        lambda: {"status": is_signed(site, image, NEXT_PUBLIC, tmp_path)},
        lambda seen: bool(seen["status"]),
        120,
    )
    # From here on nobody asks for the old key, and nothing has to wait for that.
    site.apply(objects.trust_policy(site.cluster.registry, NEXT_PUBLIC))
    status = story.wait_ready("1")
    assert is_true(status, "Trusted")
    assert status["images"][0]["image"] == image
    assert is_signed(site, image, PUBLIC_KEY, tmp_path)
    assert story.pod_uids() == running
