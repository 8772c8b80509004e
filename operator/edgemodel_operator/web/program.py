"""Running a program that serves in the cluster: settings, logs, the API, and the signals that end it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from edgemodel_operator.adapters.kube import KubeApi, NoCluster, connect
from edgemodel_operator.settings import InvalidSettings, Settings, load_settings
from edgemodel_operator.web.logs import configure_logging

Serve: TypeAlias = Callable[[Settings, KubeApi, asyncio.Event], Awaitable[None]]
"""Serves until the event is set, then ends what is under way and returns."""


def run_program(name: str, serve: Serve) -> None:
    """Run until SIGTERM or SIGINT; exits 2 when the configuration cannot be used."""
    try:
        settings = load_settings()
        configure_logging(settings.log_level)
        asyncio.run(_run(settings, serve))
    except (InvalidSettings, NoCluster) as error:
        sys.stderr.write(f"{name}: {error}\n")
        sys.exit(2)


async def _run(settings: Settings, serve: Serve) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with connect() as api:
        await serve(settings, api, stop)
