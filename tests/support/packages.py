"""Programs from Debian that judge what we make: installed when they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def install_package(name: str, package: str = "") -> str:
    """Give the path of the program, from the Debian package of the same name if no other is given.

    Fails the test, with the command, where it is missing and cannot be installed.
    """
    if shutil.which(name) is None:
        command = f"apt-get install --no-install-recommends {package or name}"
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            pytest.fail(f"{name} is not installed: run `{command}` as root")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for argv in (["apt-get", "update", "-qq"], [*command.split(), "--yes", "-qq"]):
            subprocess.run(argv, env=environment, check=True, capture_output=True)
    found = shutil.which(name)
    assert found is not None
    return found
