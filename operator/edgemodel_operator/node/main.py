"""The program `edgemodel-node`: puts the agent of a node together, runs it, ends it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path

from edgemodel_operator.adapters.authorities import AuthorityStore
from edgemodel_operator.adapters.kube import KubeApi
from edgemodel_operator.adapters.policy_verifier import PolicyVerifier
from edgemodel_operator.adapters.registry_access import RegistryAccess
from edgemodel_operator.node.agent import Agent, Parts
from edgemodel_operator.node.client import RECORD
from edgemodel_operator.node.metrics import NodeMetrics
from edgemodel_operator.node.presence import Presence
from edgemodel_operator.node.record import Fixed, Record, load_record
from edgemodel_operator.node.trust import NodeTrust
from edgemodel_operator.node.verifier import RememberingVerifier
from edgemodel_operator.oci.transport import new_session
from edgemodel_operator.settings import Settings, Unmatched
from edgemodel_operator.web.probes import serve_probes
from edgemodel_operator.web.program import run_program


def main() -> None:
    """Run until SIGTERM or SIGINT; exits 0 then, and 2 when the configuration cannot be used."""
    run_program("edgemodel-node", serve)


async def serve(settings: Settings, api: KubeApi, stop: asyncio.Event) -> None:
    """Serve this node until `stop` is set."""
    node = settings.node
    state = Path(node.state_dir)
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    earlier = load_record(state / RECORD)
    record = earlier or Record()
    metrics = NodeMetrics()
    failed = metrics.watch_failures.inc
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            new_session(authorities=settings.registries.certificate_authorities)
        )
        verifier = RememberingVerifier(
            PolicyVerifier(AuthorityStore(api, settings.namespace, time.monotonic)),
            RegistryAccess(
                session,
                settings.registries.plain_http,
                (api, settings.namespace, settings.registries.credentials_secret),
                clock=time.monotonic,
            ),
            record,
            metrics,
        )
        stack.push_async_callback(verifier.close)
        trust = NodeTrust(api, settings.namespace, record, earlier=earlier is not None, failed=failed)
        presence = Presence(api, settings.namespace, node.daemon_set, failed)
        parts = Parts(_fixed(settings), record, trust, verifier, presence, metrics)
        agent = Agent(state, Path(node.bin_dir), parts, lambda: datetime.now(UTC))
        await stack.enter_async_context(
            serve_probes(settings.metrics_port, metrics.registry, lambda: agent.ready, lambda: True)
        )
        await agent.run(stop)


def _fixed(settings: Settings) -> Fixed:
    node = settings.node
    return Fixed(
        pod=f"{node.kubelet_dir}/pods/{settings.pod_uid}" if settings.pod_uid else "",
        own=node.image,
        exempt=node.exempt,
        deny_unmatched=node.unmatched is Unmatched.DENY,
    )
