"""Probes answer what they are told, and metrics are what Prometheus reads."""

from __future__ import annotations

import aiohttp
from prometheus_client import CollectorRegistry, Counter

from edgemodel_operator.web.probes import serve_probes


async def get(port: int, path: str) -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status, response.headers["Content-Type"], await response.text()


async def test_probes_follow_their_conditions() -> None:
    state = {"ready": False, "live": True}
    registry = CollectorRegistry()
    async with serve_probes(
        0, registry, lambda: state["ready"], lambda: state["live"], host="127.0.0.1"
    ) as port:
        assert (await get(port, "/readyz"))[0] == 503
        assert (await get(port, "/healthz"))[0] == 200
        state.update(ready=True, live=False)
        assert (await get(port, "/readyz"))[0] == 200
        assert (await get(port, "/healthz"))[0] == 503


async def test_metrics_are_served_as_text() -> None:
    registry = CollectorRegistry()
    Counter("edgemodel_seen", "Seen.", registry=registry).inc(3)
    async with serve_probes(0, registry, lambda: True, lambda: True, host="127.0.0.1") as port:
        status, content_type, text = await get(port, "/metrics")
    assert status == 200
    assert content_type.startswith("text/plain")
    assert "edgemodel_seen_total 3.0" in text
