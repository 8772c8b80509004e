"""The life of gRPC calls and of their server: deadlines, cancellation, health, numbers, an orderly end."""

import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_client import INFERENCE, GrpcClient, fails_with, outputs_of, raw_request
from hpack import Decoder, Encoder
from serving import ModelMaker, ServerProcess, StartServer, Wire

from edgemodel_server import __version__
from edgemodel_server.grpc import frames
from edgemodel_server.grpc.messages import add_prefix
from edgemodel_server.grpc.protos import inference_pb2 as pb
from edgemodel_server.grpc.protos.health_pb2 import HealthCheckRequest, HealthCheckResponse

FP32 = np.float32


@pytest.fixture
def dense_model(models: ModelMaker, tmp_path: Path) -> Path:
    return models.dense(tmp_path / "model.onnx")


# -- time ----------------------------------------------------------------------------------------------------


def test_a_deadline_is_kept_while_the_model_computes(
    grpc_client: GrpcClient, grpc_server: ServerProcess
) -> None:
    request = raw_request("slow", x=np.zeros(1, FP32))
    fails_with(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: grpc_client.infer(request, timeout=0.05))
    grpc_client.infer(request)  # the next one is computed


def test_the_server_keeps_a_deadline_by_itself(grpc_client: GrpcClient) -> None:
    """The library of gRPC would end its call whatever the server does; this client only waits."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", f"/{INFERENCE}/ModelInfer")]
    fields += [("content-type", "application/grpc"), ("grpc-timeout", "50m")]
    message = raw_request("slow", x=np.zeros(1, FP32)).SerializeToString()
    with Wire(grpc_client.port) as wire:
        wire.send(frames.PREFACE + frames.make_settings({}))
        wire.send(frames.make_frame(frames.HEADERS, frames.END_HEADERS, 1, Encoder().encode(fields)))
        wire.send(frames.make_frame(frames.DATA, frames.END_STREAM, 1, add_prefix(len(message)) + message))
        kind, payload = frames.SETTINGS, b""
        while kind != frames.HEADERS:
            head = wire.stream.read(9)
            kind, payload = head[3], wire.stream.read(int.from_bytes(head[:3], "big"))
    told = dict(Decoder().decode(payload))
    assert told["grpc-status"] == "4"
    assert told["grpc-message"] == "the deadline of the request passed before it was computed"


def test_the_parameter_timeout_is_a_deadline_too(grpc_client: GrpcClient) -> None:
    request = raw_request("slow", x=np.zeros(1, FP32))
    request.parameters["timeout"].int64_param = 20_000
    words = fails_with(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: grpc_client.infer(request))
    assert words == "the deadline of the request passed before it was computed"


def test_a_cancelled_call_is_not_computed(grpc_client: GrpcClient, grpc_server: ServerProcess) -> None:
    series = 'edgemodel_server_inference_requests_total{model="slow",result="cancelled"}'
    before = grpc_server.metric(series)
    request = raw_request("slow", x=np.zeros(1, FP32))
    infer = grpc_client.unary("ModelInfer", pb.ModelInferResponse)
    calls = [infer.future(request, timeout=60) for _ in range(3)]
    while grpc_server.metric('edgemodel_server_queued_requests{model="slow"}') < 3:
        time.sleep(0.01)
    calls[2].cancel()
    calls[1].cancel()
    assert calls[0].result().outputs
    while grpc_server.metric(series) != before + 2:
        time.sleep(0.01)
    while grpc_server.metric('edgemodel_server_queued_requests{model="slow"}'):
        time.sleep(0.01)
    assert grpc_server.metric('edgemodel_server_inference_requests_total{model="slow",result="ok"}') >= 1


def test_other_calls_are_answered_while_one_computes(grpc_client: GrpcClient) -> None:
    slow = grpc_client.unary("ModelInfer", pb.ModelInferResponse).future(
        raw_request("slow", x=np.zeros(1, FP32)), timeout=60
    )
    assert grpc_client.call("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse).live
    assert grpc_client.infer(raw_request("dense", x=np.zeros((1, 4), FP32))).outputs
    assert not slow.done()
    assert slow.result().outputs


# -- what there is -------------------------------------------------------------------------------------------


def test_the_server_describes_itself(grpc_client: GrpcClient) -> None:
    answer = grpc_client.call("ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse)
    assert (answer.name, answer.version) == ("edgemodel-server", __version__)
    assert list(answer.extensions) == ["binary_tensor_data"]
    ready = grpc_client.call("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse)
    assert not ready.ready  # one model is broken


def test_models_describe_themselves(grpc_client: GrpcClient) -> None:
    answer = grpc_client.call(
        "ModelMetadata", pb.ModelMetadataRequest(name="dense"), pb.ModelMetadataResponse
    )
    assert (answer.name, list(answer.versions), answer.platform) == ("dense", ["7"], "onnxruntime_onnx")
    assert [(entry.name, entry.datatype, list(entry.shape)) for entry in answer.inputs] == [
        ("x", "FP32", [-1, 4])
    ]
    assert [(entry.name, entry.datatype, list(entry.shape)) for entry in answer.outputs] == [
        ("y", "FP32", [-1, 3])
    ]
    for name, ready in (("dense", True), ("broken", False)):
        told = grpc_client.call("ModelReady", pb.ModelReadyRequest(name=name), pb.ModelReadyResponse)
        assert told.ready is ready
    fails_with(
        grpc.StatusCode.NOT_FOUND,
        lambda: grpc_client.call("ModelReady", pb.ModelReadyRequest(name="rose"), pb.ModelReadyResponse),
    )


def test_the_index_of_the_repository(grpc_client: GrpcClient) -> None:
    answer = grpc_client.call("RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse)
    states = {entry.name: entry.state for entry in answer.models}
    assert states.pop("broken") == "UNAVAILABLE"
    assert set(states.values()) == {"READY"}
    only = grpc_client.call(
        "RepositoryIndex", pb.RepositoryIndexRequest(ready=True), pb.RepositoryIndexResponse
    )
    assert {entry.name for entry in only.models} == set(states)


def check(grpc_client: GrpcClient, service: str) -> int:
    request = HealthCheckRequest(service=service)
    return grpc_client.call("Check", request, HealthCheckResponse, "grpc.health.v1.Health").status


def test_health(grpc_client: GrpcClient) -> None:
    assert check(grpc_client, "dense") == HealthCheckResponse.SERVING
    for service in ("", "inference.GRPCInferenceService", "broken"):
        assert check(grpc_client, service) == HealthCheckResponse.NOT_SERVING
    assert fails_with(grpc.StatusCode.NOT_FOUND, lambda: check(grpc_client, "rose")) == (
        'there is no service and no model "rose"'
    )


def test_calls_are_counted_and_logged(grpc_client: GrpcClient, grpc_server: ServerProcess) -> None:
    label = 'method="inference.GRPCInferenceService/ModelReady"'
    before = grpc_server.metric(f'edgemodel_server_grpc_calls_total{{{label},code="NOT_FOUND"}}')
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with pytest.raises(grpc.RpcError):
        grpc_client.call(
            "ModelReady",
            pb.ModelReadyRequest(name="tulip"),
            pb.ModelReadyResponse,
            metadata=[("traceparent", trace)],
        )
    assert grpc_server.metric(f'edgemodel_server_grpc_calls_total{{{label},code="NOT_FOUND"}}') == before + 1
    assert grpc_server.metric("edgemodel_server_grpc_connections") >= 1
    (line,) = [line for line in grpc_server.log if line.get("trace_id") == trace[3:35]]
    assert (line["protocol"], line["path"], line["status"], line["grpc_status"]) == (
        "grpc",
        "/inference.GRPCInferenceService/ModelReady",
        200,
        5,
    )
    assert line["bytes_in"] == 5 + 7


def test_the_access_log_says_what_an_inference_took(
    grpc_client: GrpcClient, grpc_server: ServerProcess
) -> None:
    request = raw_request("dense", x=np.zeros((1, 4), FP32))
    request.id = "logged"
    grpc_client.infer(request)
    while not (lines := [line for line in grpc_server.log if line.get("id") == "logged"]):
        assert grpc_server.process.poll() is None
        time.sleep(0.01)  # the line is written before the answer, and read by another thread
    (line,) = lines
    assert (line["model"], line["grpc_status"]) == ("dense", 0)
    assert line["compute_seconds"] > 0
    assert line["bytes_out"] > 12


def read_frame(wire: Wire) -> int:
    """Read one frame; returns its type."""
    head = wire.stream.read(9)
    wire.stream.read(int.from_bytes(head[:3], "big"))
    return head[3]


def is_cut(wire: Wire) -> bool:
    try:
        return wire.send(frames.PREFACE + frames.make_settings({})).stream.read(1) == b""
    except OSError:
        return True


def test_connections_beyond_the_limit_are_cut_and_the_others_go_on(
    dense_model: Path, start_server: StartServer
) -> None:
    server = start_server("--model", dense_model, "--grpc-port", 0, "--max-connections", 1)
    port = server.wait_for("listening")["grpc_port"]
    with Wire(port) as wire:
        wire.send(frames.PREFACE + frames.make_settings({}))
        assert read_frame(wire) == frames.SETTINGS
        with Wire(port) as other:
            assert is_cut(other)
        wire.send(frames.make_frame(frames.PING, 0, 0, bytes(8)))
        while read_frame(wire) != frames.PING:
            pass


# -- the end -------------------------------------------------------------------------------------------------


def test_no_call_fails_while_the_server_drains(dense_model: Path, start_server: StartServer) -> None:
    """Calls go on through the drain and the GOAWAY; those that come too late to be served never began."""
    server = start_server("--model", dense_model, "--grpc-port", 0, "--drain-seconds", "0.5")
    stop = threading.Event()
    outcomes: list[Any] = []

    def ask(grpc_client: GrpcClient) -> None:
        while not stop.is_set():
            try:
                client.infer(raw_request("model", x=np.zeros((1, 4), FP32)), timeout=20)
            except grpc.RpcError as error:
                outcomes.append(error)
                return
            outcomes.append(None)

    with GrpcClient(server, max_reconnect_backoff_ms=100) as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(outcomes) < 100:
            time.sleep(0.01)
        assert server.stop() == 0
        stop.set()
        for thread in threads:
            thread.join()
    errors = [outcome for outcome in outcomes if outcome is not None]
    assert {error.code() for error in errors} <= {grpc.StatusCode.UNAVAILABLE}
    assert all("Connection refused" in error.details() for error in errors), (
        errors
    )  # there is no server any more


def test_a_call_under_way_is_finished_before_the_end(
    models: ModelMaker, tmp_path: Path, start_server: StartServer
) -> None:
    model = models.slow(tmp_path / "model.onnx")
    server = start_server("--model", model, "--grpc-port", 0, "--drain-seconds", 0)
    with GrpcClient(server) as client:
        infer = client.unary("ModelInfer", pb.ModelInferResponse)
        call = infer.future(raw_request("model", x=np.ones(1, FP32)), timeout=60)
        while server.metric('edgemodel_server_queued_requests{model="model"}') < 1:
            time.sleep(0.01)
        assert server.stop() == 0
        np.testing.assert_array_equal(outputs_of(call.result())["y"], [1])


def test_watchers_are_told_of_the_end(dense_model: Path, start_server: StartServer) -> None:
    server = start_server("--model", dense_model, "--grpc-port", 0, "--drain-seconds", 1)
    with GrpcClient(server) as client:
        watch = client.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            HealthCheckRequest.SerializeToString,
            HealthCheckResponse.FromString,
        )
        everything = watch(HealthCheckRequest(), timeout=60)
        nothing = watch(HealthCheckRequest(service="rose"), timeout=60)
        assert next(everything).status == HealthCheckResponse.SERVING
        assert next(nothing).status == HealthCheckResponse.SERVICE_UNKNOWN
        idle = client.stream("ModelStreamInfer", _wait_for_ever(), pb.ModelStreamInferResponse)
        assert not next(idle).error_message
        server.process.terminate()
        assert next(everything).status == HealthCheckResponse.NOT_SERVING
        for stream in (everything, nothing, idle):
            words = fails_with(grpc.StatusCode.UNAVAILABLE, lambda stream=stream: next(stream))  # type: ignore[misc]
            assert words.startswith("the server was told to stop")
        assert server.wait() == 0


def _wait_for_ever() -> Any:
    yield raw_request("model", x=np.zeros((1, 4), FP32))
    threading.Event().wait(60)


def test_watchers_are_told_when_a_model_becomes_ready(
    models: ModelMaker, tmp_path: Path, start_server: StartServer
) -> None:
    model = models.slow(tmp_path / "model.onnx", 12_000)
    server = start_server("--model", model, "--grpc-port", 0, until=())
    with GrpcClient(server) as client:
        watch = client.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            HealthCheckRequest.SerializeToString,
            HealthCheckResponse.FromString,
        )
        told = watch(HealthCheckRequest(service="model"), timeout=60)
        assert next(told).status == HealthCheckResponse.NOT_SERVING
        assert next(told).status == HealthCheckResponse.SERVING
        told.cancel()


def test_a_grpc_port_that_is_taken_is_told(
    grpc_server: ServerProcess, dense_model: Path, start_server: StartServer
) -> None:
    taken = grpc_server.wait_for("listening")["grpc_port"]
    with pytest.raises(AssertionError, match="Address already in use"):  # it says so instead of "listening"
        start_server("--model", dense_model, "--grpc-port", taken)


def test_rest_alone_loads_nothing_of_grpc(dense_server: ServerProcess) -> None:
    maps = Path(f"/proc/{dense_server.process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "google/_upb" not in maps
