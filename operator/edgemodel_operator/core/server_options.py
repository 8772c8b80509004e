"""What an EdgeModel and its AcceleratorClass mean on the server's command line (`images/CONTRACT.md`)."""

from __future__ import annotations

from edgemodel_operator.api.acceleratorclass import RuntimeChoice
from edgemodel_operator.api.serving import BatchingMode, Serving


def serving_options(serving: Serving) -> tuple[str, ...]:
    """Give the arguments besides the ports; what nobody set is left to the server."""
    batching, log = serving.batching, serving.access_log_percent
    given = {
        "--batching": "off" if batching.mode is BatchingMode.DISABLED else None,
        "--max-batch-size": batching.max_batch_size,
        "--max-delay-ms": batching.max_delay_milliseconds,
        "--idle-unload": serving.idle_unload_seconds,
        "--max-cpu-percent": serving.max_cpu_percent,
        "--threads": serving.threads,
        "--max-queue": serving.max_queued_requests,
        "--max-body-bytes": serving.max_body_bytes,
        "--access-log": None if log is None else f"{log / 100:g}",
    }
    return tuple(text for name, value in given.items() if value is not None for text in (name, str(value)))


def runtime_options(runtime: RuntimeChoice) -> tuple[str, ...]:
    """Give the arguments for the runtime, but for the provider that is required."""
    options = [f"{key}={value}" for key, value in sorted(runtime.provider_options.items())]
    return (
        *(text for option in options for text in ("--provider-option", option)),
        *(("--delegate", runtime.delegate) if runtime.delegate else ()),
        *(("--allow-cpu-fallback",) if runtime.allow_cpu_fallback else ()),
    )
