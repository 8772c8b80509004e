"""The agent on a node that is a folder: it installs what works, answers, remembers, and leaves in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgemodel_operator.adapters.authorities import PolicyDemand, Problem
from edgemodel_operator.adapters.kube import KubeApi
from edgemodel_operator.adapters.policy_verifier import CannotVerify
from edgemodel_operator.core.trust import Policy
from edgemodel_operator.node import agent as agents
from edgemodel_operator.node import hook as hooks
from edgemodel_operator.node import runtime
from edgemodel_operator.node.agent import Agent, Parts
from edgemodel_operator.node.client import RECORD
from edgemodel_operator.node.metrics import NodeMetrics
from edgemodel_operator.node.presence import Presence
from edgemodel_operator.node.record import Fixed, Record, load_record
from edgemodel_operator.node.trust import POLICIES_PATH, NodeTrust
from edgemodel_operator.node.verifier import RememberingVerifier
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.signing.demand import Demand
from edgemodel_operator.signing.verdict import Evidence, Trusted, Verdict
from support.kube_api import KubeApiServer, kube_api_server
from support.node_site import utc_now

HOST = "registry.plant-a.local:5000"
GOOD, DARK = f"sha256:{'a' * 64}", f"sha256:{'c' * 64}"
SPACE = "edgemodel-system"
DAEMON_SETS = f"/apis/apps/v1/namespaces/{SPACE}/daemonsets"
PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"


class Verifier:
    """Stands for PolicyVerifier: trusts GOOD, cannot tell about others; its keys can be away."""

    def __init__(self) -> None:
        self.demand = Demand((), threshold=1)
        self.keys_away = False
        self.asked: list[str] = []

    async def demand_of(self, policy: Policy) -> PolicyDemand:
        if self.keys_away:
            return PolicyDemand(Demand((), threshold=9), (Problem("it is away", unknown=True),))
        return PolicyDemand(self.demand)

    async def examine(self, client: Any, image: Reference, demand: Demand) -> Verdict:
        self.asked.append(str(image))
        if image.digest != GOOD or self.keys_away:
            raise CannotVerify("the registry is away")
        return Trusted(("plant",), (Evidence(GOOD, ("plant",)),))


class Registries:
    async def client(self) -> Any:
        return None


@dataclass
class Node:
    """A node's folders, and what the agent is made of."""

    state: Path
    bin_dir: Path
    server: KubeApiServer
    api: KubeApi
    verifier: Verifier
    metrics: NodeMetrics

    @property
    def hook(self) -> Path:
        return self.bin_dir / "edgemodel"

    @asynccontextmanager
    async def agent(self, pod: str = "") -> AsyncIterator[asyncio.Event]:
        """Run the agent; gives the event that stops it, and waits for its end."""
        earlier = load_record(self.state / RECORD)
        record = earlier or Record()
        trust = NodeTrust(self.api, SPACE, record, earlier=earlier is not None)
        parts = Parts(
            Fixed(pod, "", (), deny_unmatched=False),
            record,
            trust,
            RememberingVerifier(self.verifier, Registries(), record, self.metrics),  # type: ignore[arg-type]
            Presence(self.api, SPACE, "edgemodel-node"),
            self.metrics,
        )
        stop = asyncio.Event()
        running = asyncio.create_task(Agent(self.state, self.bin_dir, parts, utc_now).run(stop))
        try:
            yield stop
        finally:
            stop.set()
            await running

    async def ask(self, digest: str, repository: str = "models/line") -> subprocess.CompletedProcess[str]:
        """Run the installed program as containerd does, with an empty environment."""
        name = f"{HOST}/{repository}@{digest}"
        argv = [str(self.hook), "-name", name, "-digest", digest, "-stdin-media-type", "x"]
        return await asyncio.to_thread(
            subprocess.run, argv, capture_output=True, text=True, check=False, timeout=60, env={}
        )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give one copy of the interpreter for all tests that only use it."""
    return runtime.install_runtime(tmp_path_factory.mktemp("copy"))


@pytest.fixture
async def node(tmp_path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    def install(state: Path) -> Path:
        place = state / copy.name
        return place if place.exists() else Path(shutil.copytree(copy, place, copy_function=os.link))

    monkeypatch.setattr(hooks, "install_runtime", install)
    monkeypatch.setattr(agents, "LOOK_SECONDS", 0.01)
    state = tmp_path / "state"
    state.mkdir()
    async with kube_api_server() as (server, api):
        authorities = [{"name": "plant", "keys": [{"data": PEM}]}]
        spec = {"images": [f"{HOST}/models/**"], "authorities": authorities}
        await server.put(f"{POLICIES_PATH}/models", {"metadata": {"name": "models"}, "spec": spec})
        await server.put(f"{DAEMON_SETS}/edgemodel-node", {"metadata": {"name": "edgemodel-node"}})
        yield Node(state, tmp_path / "verifier" / "bin", server, api, Verifier(), NodeMetrics())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def pod_of(node: Node) -> str:
    return str(json.loads((node.state / RECORD).read_text())["pod"])


def remembers(node: Node, digest: str) -> Callable[[], bool]:
    def look() -> bool:
        record = load_record(node.state / RECORD)
        return record is not None and any(digest in image for image in record.verdicts)

    return look


async def test_the_installed_program_gets_the_agents_answers(node: Node) -> None:
    async with node.agent():
        await until(node.hook.exists)
        assert list(node.bin_dir.iterdir()) == [node.hook]
        assert [path.name for path in node.bin_dir.parent.iterdir()] == ["bin"]
        allowed, refused, other = [await node.ask(*what) for what in ((GOOD,), (DARK,), (DARK, "tools/x"))]
    assert (allowed.returncode, refused.returncode, other.returncode) == (0, 1, 0)
    assert "satisfies models" in allowed.stdout
    assert "the registry is away" in refused.stdout
    assert node.metrics.pulls.labels("allow")._value.get() == 1


async def test_only_its_owner_may_use_the_socket(node: Node) -> None:
    async with node.agent():
        await until((node.state / "agent.sock").exists)
        mode = (node.state / "agent.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert mode & 0o777 == 0o600
    assert not (node.state / "agent.sock").exists()


async def test_case_25c_a_stopped_agent_leaves_a_program_that_goes_by_what_was_verified(node: Node) -> None:
    async with node.agent():
        await until(node.hook.exists)
        await node.ask(GOOD)
        await until(remembers(node, GOOD))
    assert (await node.ask(GOOD)).returncode == 0
    assert "does not answer" in (await node.ask(DARK)).stdout
    assert (await node.ask(DARK, "tools/x")).returncode == 0


async def test_case_25d_an_agent_that_starts_without_api_and_keys_answers_from_the_record(node: Node) -> None:
    async with node.agent():
        await until(node.hook.exists)
        await node.ask(GOOD)
        await until(remembers(node, GOOD))
    node.server.refuse[("GET", "/")] = 503
    node.verifier.keys_away = True
    async with node.agent():
        await until((node.state / "agent.sock").exists)
        allowed, refused = await node.ask(GOOD), await node.ask(DARK)
    assert "satisfies" in allowed.stdout
    assert refused.returncode == 1
    assert node.verifier.asked.count(f"{HOST}/models/line@{GOOD}") == 1


async def test_case_67b_verdicts_under_keys_that_were_taken_away_are_forgotten(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "KEYS_EVERY", 1)
    async with node.agent():
        await until(node.hook.exists)
        await node.ask(GOOD)
        await until(remembers(node, GOOD))
        node.verifier.demand = Demand((), threshold=2)
        await until(lambda: not remembers(node, GOOD)())
    assert (await node.ask(GOOD)).returncode == 1


async def test_policies_are_followed(node: Node) -> None:
    async with node.agent():
        await until(node.hook.exists)
        await node.server.delete(f"{POLICIES_PATH}/models")
        await until(lambda: json.loads((node.state / RECORD).read_text())["policies"] == [])
        assert (await node.ask(DARK)).returncode == 0


async def test_nothing_is_installed_before_the_policies_are_known(node: Node) -> None:
    node.server.refuse[("GET", POLICIES_PATH)] = 403
    async with node.agent():
        await until(lambda: ("GET", POLICIES_PATH) in node.server.calls)
        await until((node.state / "agent.sock").exists)
        assert not node.hook.exists()
        del node.server.refuse[("GET", POLICIES_PATH)]
        await until(node.hook.exists)


async def test_a_program_that_was_deleted_comes_back(node: Node) -> None:
    async with node.agent():
        await until(node.hook.exists)
        node.hook.unlink()
        await until(node.hook.exists)


async def test_when_the_daemon_set_is_deleted_nothing_is_left(node: Node) -> None:
    async with node.agent():
        await until(node.hook.exists)
        await node.server.delete(f"{DAEMON_SETS}/edgemodel-node")
        await until(lambda: not node.hook.exists())
    assert list(node.state.iterdir()) == []
    assert list(node.bin_dir.iterdir()) == []


async def test_a_deletion_that_only_the_last_look_sees_counts(node: Node) -> None:
    async with node.agent() as stop:
        await until(node.hook.exists)
        del node.server.objects[f"{DAEMON_SETS}/edgemodel-node"]
        stop.set()
    assert not node.hook.exists()


async def test_nothing_is_taken_away_while_it_is_still_being_installed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    installing, go_on = threading.Event(), threading.Event()
    install = hooks.Hook.install

    def slowly(hook: hooks.Hook) -> None:
        installing.set()
        go_on.wait(60)
        install(hook)

    monkeypatch.setattr(hooks.Hook, "install", slowly)
    async with node.agent():
        await until(installing.is_set)
        await node.server.delete(f"{DAEMON_SETS}/edgemodel-node")
        await asyncio.sleep(0.2)
        go_on.set()
        await until(lambda: not any(node.state.iterdir()))
    assert list(node.state.iterdir()) == []
    assert list(node.bin_dir.iterdir()) == []


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_an_end_without_a_clear_answer_leaves_everything_in_place(node: Node, status: int) -> None:
    async with node.agent() as stop:
        await until(node.hook.exists)
        node.server.refuse[("GET", DAEMON_SETS)] = status
        stop.set()
    assert node.hook.exists()
    assert (node.state / RECORD).exists()


async def test_a_successor_takes_over_and_its_predecessor_keeps_off(node: Node) -> None:
    socket = node.state / "agent.sock"
    async with contextlib.AsyncExitStack() as successor:
        async with node.agent(pod="/pods/first"):
            await until(node.hook.exists)
            first = socket.stat().st_ino
            await successor.enter_async_context(node.agent(pod="/pods/second"))
            await until(lambda: socket.stat().st_ino != first and pod_of(node) == "/pods/second")
            # Both see the news; only the successor writes it down.
            await node.server.delete(f"{POLICIES_PATH}/models")
            await until(lambda: json.loads((node.state / RECORD).read_text())["policies"] == [])
        assert socket.exists()
        assert pod_of(node) == "/pods/second"
        assert (await node.ask(DARK)).returncode == 0
    assert not socket.exists()


async def test_a_damaged_copy_is_made_anew_and_old_ones_go(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "install_runtime", runtime.install_runtime)
    async with node.agent():
        await until(node.hook.exists)
    [first] = node.state.glob("runtime-*")
    (first / "client.py").write_text("raise SystemExit(0)")
    (node.state / "runtime-0000000000000000").mkdir()
    node.hook.unlink()
    async with node.agent():
        await until(node.hook.exists)
        assert (await node.ask(DARK)).returncode == 1
    assert list(node.state.glob("runtime-*")) == [first]


async def test_who_deletes_the_copy_by_hand_switches_it_off(node: Node) -> None:
    async with node.agent():
        await until(node.hook.exists)
    runtime.remove_runtimes(node.state)
    assert (await node.ask(DARK)).returncode == 0


async def test_a_copy_that_would_take_libraries_of_the_node_is_not_used(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = runtime.find_parts()
    monkeypatch.setattr(
        runtime, "find_parts", lambda: runtime.Parts(whole.executable, whole.loader, {}, whole.modules)
    )
    with pytest.raises(runtime.CannotCopy, match="would take"):
        runtime.install_runtime(node.state)


def test_the_copy_needs_nothing_of_the_container(copy: Path, tmp_path: Path) -> None:
    folder = copy
    argv = runtime.command(folder, tmp_path, tmp_path / "hook")
    code = (
        "import sys; loaded = [getattr(m, '__file__', None) for m in sys.modules.values()];"
        "print(sys.prefix, *filter(None, loaded))"
    )
    probe = [*argv[: argv.index("-S") + 1], "-c", code]
    run = subprocess.run(probe, capture_output=True, text=True, check=True, env={}, cwd="/")
    prefix, *files = run.stdout.split()
    assert Path(prefix) == folder
    assert run.stderr == ""
    assert files
    assert all(Path(name).is_relative_to(folder) for name in files)
    assert os.access(folder / "loader", os.X_OK)


@pytest.mark.parametrize(
    "line", [b"", b"x\n", b"[]\n", b'{"name": 5, "digest": ""}\n', b"[" * 9000 + b"\n", b"x" * 70000]
)
async def test_a_question_that_is_none_is_refused(node: Node, line: bytes) -> None:
    async with node.agent():
        await until((node.state / "agent.sock").exists)
        reader, writer = await asyncio.open_unix_connection(str(node.state / "agent.sock"))
        writer.write(line)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
    assert json.loads(answer)["allowed"] is False
