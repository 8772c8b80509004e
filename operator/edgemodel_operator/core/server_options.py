"""What an EdgeModel's `spec.serving` means on the command line of the server (`images/CONTRACT.md`)."""

from __future__ import annotations

from edgemodel_operator.api.serving import BatchingMode, Serving


def server_options(serving: Serving) -> tuple[str, ...]:
    """Give the arguments besides the ports; what nobody set is left to the server."""
    batching = serving.batching
    given = {
        "--max-batch-size": batching.max_batch_size,
        "--max-delay-ms": batching.max_delay_milliseconds,
        "--idle-unload": serving.idle_unload_seconds,
        "--max-cpu-percent": serving.max_cpu_percent,
    }
    off = ("--batching", "off") if batching.mode is BatchingMode.DISABLED else ()
    return (
        *off,
        *(text for name, value in given.items() if value is not None for text in (name, str(value))),
    )
