"""The program ``edgemodel-server``: serve, ``--check`` or ``--prefetch``."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0, 1 for a failed check, 2 for a wrong command line."""
    # First of all: for process 1 of a container the kernel drops signals that have no handler yet.
    signal.signal(signal.SIGTERM, _exit_at_once)
    signal.signal(signal.SIGINT, _exit_at_once)

    from edgemodel_server.log import configure_log  # noqa: PLC0415
    from edgemodel_server.settings import parse_settings  # noqa: PLC0415

    settings = parse_settings(sys.argv[1:] if argv is None else argv)
    configure_log()
    # Each mode imports its own modules: --prefetch must stay without numpy and a runtime.
    if settings.prefetch:
        from edgemodel_server.prefetch import hold_files  # noqa: PLC0415

        return hold_files(settings)
    if settings.check:
        from edgemodel_server.check import check_models  # noqa: PLC0415

        return check_models(settings)
    from edgemodel_server.serve import serve  # noqa: PLC0415

    return serve(settings)


def _exit_at_once(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
