"""The memory of the signer is its own, and it can still load what it needs."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import ctypes, json, os, resource, ssl, sys
from datetime import UTC, datetime
from edgemodel_operator.signer.privacy import keep_memory_private
from edgemodel_operator.web.certificate_keeper import _load_chain
from edgemodel_operator.web.certificates import next_material
if os.geteuid() == 0:
    os.setgid(65532)
    os.setuid(65532)
libc = ctypes.CDLL(None)
libc.prctl(4, 1, 0, 0, 0)  # as after exec: a change of the user has switched it off already
before = libc.prctl(3, 0, 0, 0, 0)
keep_memory_private()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
_load_chain(context, next_material(None, "x.y.svc", datetime.now(UTC)).leaf_pem)
try:
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    raised = True
except (ValueError, PermissionError):
    raised = False
print(json.dumps({
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "raised": raised,
    "dumpable": [before, libc.prctl(3, 0, 0, 0, 0)],
    "owner": os.stat("/proc/self/environ").st_uid,
}))
"""


def test_there_are_no_core_dumps_and_no_looks_from_the_same_user() -> None:
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(process.stdout) == {"core": [0, 0], "raised": False, "dumpable": [1, 0], "owner": 0}
