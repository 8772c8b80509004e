"""The parts of the test cluster that need no cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from cluster import tools
from cluster.backends.api_proxy import proxy_path
from cluster.backends.kubeconfig import probed_capabilities
from cluster.commands import ClusterError, CommandFailed, run
from cluster.fixture import open_cluster
from cluster.forwarder import Route, free_port, parse_route
from cluster.images import write_archive
from cluster.locks import exclusive
from cluster.node_files import masked_spec, processor_files
from cluster.ownership import Use
from cluster.places import NODES, SOURCES
from cluster.processes import started_at
from cluster.recipes import RECIPES
from cluster.transfer import FileServer, request

pytest_plugins = ["pytester"]


def test_a_route_survives_being_written_and_read() -> None:
    route = Route(36443, "10.199.0.1", 6443)
    assert parse_route(str(route)) == route


@pytest.mark.parametrize("text", ["", "1", "x=10.0.0.1:1", "1=10.0.0.1"])
def test_a_route_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parse_route(text)


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) != port


def test_node_names_and_cables_fit_the_kernel() -> None:
    assert len({node.address for node in NODES}) == len(NODES)
    assert all(len(node.cable) <= 15 for node in NODES)


def test_other_processors_are_shown_and_nothing_else_is_changed(tmp_path: Path) -> None:
    spec = {"root": {"path": "rootfs"}, "mounts": [{"destination": "/proc", "type": "proc"}]}
    masked = json.loads(masked_spec(json.dumps(spec), tmp_path))
    assert masked["mounts"][:-1] == spec["mounts"]
    assert masked["mounts"][-1]["destination"] == "/sys/devices/system/cpu"
    assert masked["mounts"][-1]["source"] == str(tmp_path)
    assert "ro" in masked["mounts"][-1]["options"]
    assert masked["root"] == spec["root"]


def test_processors_are_told_apart_and_lie_in_one_package() -> None:
    files = processor_files(3)
    assert files["online"] == "0-2\n"
    assert [files[f"cpu{number}/topology/thread_siblings"] for number in range(3)] == ["1\n", "2\n", "4\n"]
    assert {files[f"cpu{number}/topology/core_siblings"] for number in range(3)} == {"7\n"}
    assert processor_files(1)["online"] == "0\n"


def test_an_image_archive_is_the_same_for_the_same_programs_and_has_both(tmp_path: Path) -> None:
    program = tmp_path / "echo"
    program.write_bytes(b"not really a program")
    programs = {"amd64": program, "arm64": program}
    first = write_archive(tmp_path / "1.tar", "example/echo:1", programs).read_bytes()
    second = write_archive(tmp_path / "2.tar", "example/echo:1", programs).read_bytes()
    assert first == second
    run(["skopeo", "inspect", "--raw", f"oci-archive:{tmp_path / '1.tar'}"])
    with tarfile.open(tmp_path / "1.tar") as tar:
        outer = json.load(tar.extractfile("index.json") or pytest.fail("no index"))
        digest = outer["manifests"][0]["digest"].removeprefix("sha256:")
        index = json.load(tar.extractfile(f"blobs/sha256/{digest}") or pytest.fail("no inner index"))
    assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]


def test_an_address_is_found_among_services_and_pods() -> None:
    services = {"items": [{"metadata": {"namespace": "a", "name": "svc"}, "spec": {"clusterIP": "10.0.0.1"}}]}
    pod = {"metadata": {"namespace": "b", "name": "pod"}, "spec": {}, "status": {"podIP": "10.0.0.2"}}
    pods = {"items": [pod]}
    assert proxy_path(pods, services, "10.0.0.1", 80) == "/api/v1/namespaces/a/services/svc:80/proxy"
    assert proxy_path(pods, services, "10.0.0.2", 8080) == "/api/v1/namespaces/b/pods/pod:8080/proxy"
    with pytest.raises(ConnectionError, match=r"10\.0\.0\.3"):
        proxy_path(pods, services, "10.0.0.3", 80)


def test_capabilities_of_a_foreign_cluster_are_those_of_its_ready_nodes() -> None:
    def node(arch: str, ready: str, **allocatable: str) -> dict[str, object]:
        conditions = [{"type": "Ready", "status": ready}]
        status = {"conditions": conditions, "allocatable": allocatable}
        return {"metadata": {"name": arch, "labels": {"kubernetes.io/arch": arch}}, "status": status}

    lost = {"items": [node("amd64", "True"), node("arm64", "Unknown", **{"example.com/npu": "1"})]}
    assert probed_capabilities(lost, has_registry=False) == {"api", "control", "nodes", "pods"}
    back = {"items": [node("arm64", "True", **{"example.com/npu": "1"})]}
    assert probed_capabilities(back, has_registry=True) >= {"arm64", "npu", "registry"}
    assert probed_capabilities({"items": []}, has_registry=True) == {"api"}


def test_an_unknown_tool_is_named_with_those_that_exist() -> None:
    with pytest.raises(ClusterError, match=r"no tool 'cosine'.*cosign-v2.*kubelet"):
        tools.tool("cosine")


def test_a_recipe_moves_when_its_module_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES[-1]
    before = tools.recipe_folder(recipe)
    module = tmp_path / "gomod" / recipe.module
    module.mkdir(parents=True)
    for name in ("go.mod", "go.sum"):
        (module / name).write_bytes((SOURCES / "gomod" / recipe.module / name).read_bytes())
    monkeypatch.setattr(tools, "SOURCES", tmp_path)
    changed = tools.recipe_folder(recipe)
    assert changed != before
    assert tools.recipe_folder(recipe) == changed


def test_a_folder_of_the_cache_is_filled_once_and_a_killed_attempt_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "bin" / "tool-1"
    killed = (
        "import os, signal, sys; from pathlib import Path; from cluster.tools import _once\n"
        "def fill(partial):\n"
        "    (partial / 'half').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "_once(Path(sys.argv[1]), fill)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCES.parent)}
    done = subprocess.run([sys.executable, "-c", killed, str(folder)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not folder.exists()
    calls: list[Path] = []

    def fill(partial: Path) -> None:
        calls.append(partial)
        (partial / "whole").write_text("x")

    for _ in range(2):
        assert tools._once(folder, fill) == folder
    assert len(calls) == 1
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_a_lock_that_is_held_says_by_whom(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    again = exclusive(path, patience_s=0)
    with exclusive(path, patience_s=0), pytest.raises(TimeoutError, match=f"process {os.getpid()}"), again:
        pytest.fail("the lock was given twice")
    with exclusive(path, patience_s=0):
        assert path.exists()


def test_a_cluster_that_is_used_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "users"
    session, other = Use(path), Use(path)
    assert session.is_alone()
    session.share()
    with pytest.raises(ClusterError, match=f"process {os.getpid()} uses the cluster"):
        other.refuse_others()
    session.end()
    other.refuse_others()
    other.end()


def test_a_process_has_a_start_time_until_it_ends() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert started_at(process.pid)
        process.kill()
        process.wait()
        assert not started_at(process.pid)


def test_a_failed_command_says_what_it_said() -> None:
    with pytest.raises(CommandFailed, match=r"status 3\nno luck"):
        run(["sh", "-c", "echo no luck >&2; exit 3"])
    with pytest.raises(CommandFailed, match="longer than"):
        run(["sleep", "5"], timeout_s=0.1)


def test_files_are_served_and_a_missing_one_is_an_answer(tmp_path: Path) -> None:
    import threading

    (tmp_path / "model.onnx").write_bytes(b"weights")
    server = FileServer(tmp_path, "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert request(f"{server.url}/model.onnx", 5) == (200, b"weights")
        assert request(f"{server.url}/none", 5)[0] == 404
        assert request(f"{server.url}/model.onnx", 5, b"{}")[0] == 501
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_wish_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ClusterError, match="no capability quantum"):
        open_cluster({"quantum"})


def test_a_backend_that_cannot_be_used_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CLUSTER", "k3s")
    monkeypatch.delenv("EDGE_K3S_BIN", raising=False)
    with pytest.raises(ClusterError, match="k3s: EDGE_K3S_BIN is not set"):
        open_cluster({"api"})


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCES.parent))


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(("required", "outcome"), [("", "skipped"), ("pods", "errors")])
def test_a_missing_capability_skips_or_fails_as_asked(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, required: str, outcome: str
) -> None:
    monkeypatch.setenv("EDGE_CLUSTER", "k3s")
    monkeypatch.delenv("EDGE_K3S_BIN", raising=False)
    monkeypatch.setenv("EDGE_REQUIRE", required)
    pytester.makeini("[pytest]\nmarkers = needs(*capabilities): x\n")
    pytester.makepyfile("import pytest\n@pytest.mark.needs('pods')\ndef test_it(edge_cluster): pass\n")
    result = pytester.runpytest_subprocess("-p", "cluster.pytest_plugin", "-rs")
    result.assert_outcomes(**{outcome: 1})
    result.stdout.fnmatch_lines(["*EDGE_K3S_BIN is not set*"])


@pytest.mark.usefixtures("importable")
def test_a_need_that_no_cluster_can_meet_is_a_mistake_in_the_test(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmarkers = needs(*capabilities): x\n")
    pytester.makepyfile("import pytest\n@pytest.mark.needs('podz')\ndef test_it(): pass\n")
    result = pytester.runpytest_subprocess("-p", "cluster.pytest_plugin")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*needs podz, which no cluster has*"])
