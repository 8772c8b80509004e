"""``--prefetch``: prove that the model files arrived whole, then hold them on the node, quietly.

Such a pod pulls an image before the pod that will serve it may take over an exclusive device. It waits for a
long time on small machines: it opens no port and loads neither numpy nor a runtime.
"""

import signal

from edgemodel_server.discovery import find_sources
from edgemodel_server.errors import StartError
from edgemodel_server.log import log_error, log_info
from edgemodel_server.manifest import verify_files
from edgemodel_server.settings import Settings


def hold_files(settings: Settings) -> int:
    """Verify every model, then wait for SIGTERM or SIGINT, which ``main`` turns into exit status 0.

    Returns 1 at once when a file is not what its manifest says, or when there is no model.
    """
    found = find_sources(settings)
    failures = list(found.failures)
    for source in found.sources:
        try:
            log_info("model verified", model=source.name, version=source.version, sha256=verify_files(source))
        except StartError as error:
            failures.append(error)
    for failure in failures:
        log_error("prefetch failed", reason=failure.reason, message=failure.message)
    if failures:
        return 1
    log_info("holding", models=len(found.sources))
    while True:
        signal.pause()
