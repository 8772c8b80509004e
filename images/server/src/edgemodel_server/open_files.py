"""How many files and sockets this process may have open."""

import resource

from edgemodel_server.log import log_warning

_OWN_FILES = 128
"""What the process opens beside its connections: libraries, models, pipes."""


def allow_connections(count: int) -> None:
    """Raise the soft limit of open files, where it is lower than ``count`` connections need.

    Many systems begin with 1024 for the sake of programs that use ``select``; this one does not.
    """
    wanted = count + _OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        advice = "raise the limit (ulimit -n), or set --max-connections lower"
        log_warning("few open files", allowed=allowed, wanted=wanted, advice=advice)
