"""The agent of one node: answers clients, keeps the record on disk, keeps the program installed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edgemodel_operator.core.trust import Policy
from edgemodel_operator.node.client import ORPHANED, RECORD, SOCKET
from edgemodel_operator.node.hook import Hook
from edgemodel_operator.node.judge import PullJudge
from edgemodel_operator.node.metrics import NodeMetrics
from edgemodel_operator.node.presence import Presence
from edgemodel_operator.node.record import Fixed, Record, to_document, write_durably
from edgemodel_operator.node.runtime import CannotCopy
from edgemodel_operator.node.server import PullServer
from edgemodel_operator.node.trust import NodeTrust
from edgemodel_operator.node.verifier import RememberingVerifier

LOOK_SECONDS = 1.0
"""How often the parts are asked whether there is something to write."""
KEYS_EVERY = 30
"""Every so many looks, the keys of all policies are read again."""
RETRY_SECONDS = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What an agent is put together from."""

    fixed: Fixed
    record: Record
    trust: NodeTrust
    verifier: RememberingVerifier
    presence: Presence
    metrics: NodeMetrics


class Agent:
    """Runs on one node until it is stopped; a second one of the same node takes over from the first."""

    def __init__(self, state: Path, bin_dir: Path, parts: Parts, now: Callable[[], datetime]) -> None:
        """`state` and `bin_dir` are folders of the node, mounted at the same paths here."""
        self._state = state
        self._parts = parts
        self._hook = Hook(state, bin_dir)
        self._written = (-1, -1)
        self._installed = False
        judge = PullJudge(parts.trust, parts.verifier, parts.fixed, now)
        self._server = PullServer(judge, parts.metrics, self._write)

    @property
    def ready(self) -> bool:
        """Whether policies and DaemonSet are followed, and containerd is set to ask."""
        watches = (*self._parts.trust.watches, self._parts.presence.watch)
        return self._installed and all(watch.synced for watch in watches)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set or the DaemonSet is deleted; in the latter case take everything away."""
        presence = self._parts.presence
        async with self._server.serve(self._state / SOCKET), asyncio.TaskGroup() as tasks:
            watches = (*self._parts.trust.watches, presence.watch)
            loops = [tasks.create_task(watch.run()) for watch in watches]
            loops.append(tasks.create_task(self._keep()))
            await _any(stop, presence.gone)
            if not presence.gone.is_set():
                await presence.look_once_more()
            for loop in loops:
                loop.cancel()
        if presence.gone.is_set():
            self._hook.remove()
            self._set_installed(now=False)
            await stop.wait()

    async def _keep(self) -> None:
        """Write the record when something changed; install the program once there is something to go by."""
        looks = 0
        while True:
            if self._parts.trust.policies is not None and not self._server.is_superseded:
                if looks % KEYS_EVERY == 0:
                    await self._read_keys()
                self._write()
                if not self._installed or not self._hook.is_installed:
                    await self._install()
                looks += 1
            await asyncio.sleep(LOOK_SECONDS)

    async def _read_keys(self) -> None:
        """Learn what every policy demands now, and forget verdicts on what none demands any more."""
        policies = [one for one in self._parts.trust.policies or () if isinstance(one, Policy)]
        for policy in policies:
            await self._parts.verifier.demand_of(policy)
        current = {policy.hash for policy in policies}
        demands = self._parts.record.demands
        for old in demands.keys() - current:
            del demands[old]
        self._parts.verifier.changes += self._parts.record.prune()

    def _write(self) -> None:
        """Bring the record to the disk if it changed; before policies are known there is none."""
        parts = self._parts
        changes = (parts.trust.changes, parts.verifier.changes)
        policies = parts.trust.policies
        if policies is None or changes == self._written or self._server.is_superseded:
            return
        document = to_document(parts.record, parts.fixed, policies, parts.trust.exemptions)
        content = json.dumps(document, separators=(",", ":")).encode()
        try:
            write_durably(self._state / RECORD, content)
        except OSError as error:
            # As on a full disk. What runs goes on; the client alone would go by what was written last.
            _log.error("The record could not be written: %s", error)
            return
        self._written = changes

    async def _install(self) -> None:
        try:
            with contextlib.suppress(FileNotFoundError):
                (self._state / ORPHANED).unlink()
            await _to_its_end(self._hook.install)
            self._set_installed(now=True)
        except (CannotCopy, OSError, subprocess.SubprocessError) as error:
            # The program of an earlier start, if there is one, stays: it works with this agent too.
            _log.error("The program for containerd could not be installed: %s", error)
            await asyncio.sleep(RETRY_SECONDS)

    def _set_installed(self, *, now: bool) -> None:
        self._installed = now
        self._parts.metrics.installed.set(int(now))


async def _to_its_end(work: Callable[[], None]) -> None:
    """Do it in a thread, which cannot be stopped: who is cancelled meanwhile waits for its end."""
    doing = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait({doing})
        raise


async def _any(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
