"""What `spec.serving` becomes: arguments and ports of the pods, and ports of the Service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgemodel_operator.api.acceleratorclass import RuntimeChoice
from edgemodel_operator.api.edgemodel_status import Revision
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.core.manifests.daemonset import daemonsets
from edgemodel_operator.core.manifests.service import service
from edgemodel_operator.core.placement import CPU_CLASS
from edgemodel_operator.core.revision import make_revision
from edgemodel_operator.core.world import Model
from edgemodel_server.settings import parse_settings
from support.builders import ModelBuilder, make_model

Json = dict[str, Any]
IMAGE = f"registry.example.com:5000/models/line@sha256:{'2' * 64}"
SERVING = {
    "ports": {"http": 9090, "grpc": 9091},
    "batching": {"maxBatchSize": 8, "maxDelayMilliseconds": 20},
    "idleUnloadSeconds": 600,
    "maxCPUPercent": 50,
    "threads": 2,
    "maxQueuedRequests": 9,
    "maxBodyBytes": 4096,
    "accessLogPercent": 25,
}


def model_of(builder: ModelBuilder) -> Model:
    return Model(namespace="plant", name="line", uid="uid-of-line", generation=1, spec=builder.build())


def revision_of(builder: ModelBuilder) -> Revision:
    return make_revision("line", builder.build(), {"cpu": CPU_CLASS}, {"onnxruntime-cpu": IMAGE}, "")


def container_of(builder: ModelBuilder, revision: Revision | None = None) -> Json:
    (document,) = daemonsets(model_of(builder), revision or revision_of(builder), {})
    container: Json = document["spec"]["template"]["spec"]["containers"][0]
    return container


def ports_of(container: Json) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container["ports"]}


def test_the_server_understands_what_it_is_told() -> None:
    settings = parse_settings(container_of(make_model().with_("serving", SERVING))["args"])
    assert (settings.http_port, settings.max_batch_size, settings.max_delay) == (9090, 8, 0.02)
    assert (settings.idle_unload, settings.max_cpu_percent) == (600, 50)
    assert (settings.threads, settings.max_queue, settings.max_body_bytes) == (2, 9, 4096)
    assert settings.access_log == 0.25
    assert settings.require_provider == "CPUExecutionProvider"


def test_what_nobody_set_is_left_to_the_server() -> None:
    container = container_of(make_model())
    assert ports_of(container) == {"http": 8080, "grpc": 8081}
    ports = ["--http-port", "8080", "--drain-seconds", "5", "--grpc-port", "8081"]
    assert container["args"] == [*ports, "--require-provider", "CPUExecutionProvider"]


def test_the_server_understands_what_the_class_says_of_its_runtime() -> None:
    runtime = RuntimeChoice(
        format=ModelFormat.TFLITE,
        variant="litert-tpu",
        provider="edgetpu",
        provider_options={"device": "usb:0", "a": "b=c"},
        delegate="/usr/lib/libedgetpu.so.1",
        allow_cpu_fallback=True,
    )
    spec = make_model().with_("model.format", "TFLite").build()
    classes = {"cpu": CPU_CLASS.model_copy(update={"runtimes": (runtime,)})}
    plain = make_revision("line", spec, {"cpu": CPU_CLASS}, {"litert-cpu": IMAGE}, "")
    revision = make_revision("line", spec, classes, {"litert-tpu": IMAGE}, "")
    assert revision.name != plain.name
    settings = parse_settings(container_of(make_model(), revision)["args"])
    assert settings.require_provider == "edgetpu"
    assert settings.delegate == Path("/usr/lib/libedgetpu.so.1")
    assert dict(settings.provider_options) == {"device": "usb:0", "a": "b=c"}
    assert settings.allow_cpu_fallback


def test_batching_can_be_turned_off() -> None:
    container = container_of(make_model().with_("serving.batching.mode", "Disabled"))
    assert parse_settings(container["args"]).max_batch_size == 1


def test_the_service_has_both_ports_and_says_what_is_spoken_there() -> None:
    document = service(model_of(make_model().with_("serving", SERVING)))
    assert document["spec"]["ports"] == [
        {"name": "http", "port": 9090, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"},
        {
            "name": "grpc",
            "port": 9091,
            "targetPort": "grpc",
            "protocol": "TCP",
            "appProtocol": "kubernetes.io/h2c",
        },
    ]


def test_a_revision_from_before_grpc_keeps_the_pods_that_it_had() -> None:
    stored = revision_of(make_model()).to_raw()
    for name in ("grpcPort", "serverOptions"):
        del stored[name]
    container = container_of(make_model(), Revision.model_validate(stored))
    assert ports_of(container) == {"http": 8080}
    assert "--grpc-port" not in container["args"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("serving.ports.grpc", 9091),
        ("serving.batching.mode", "Disabled"),
        ("serving.batching.maxBatchSize", 8),
        ("serving.batching.maxDelayMilliseconds", 0),
        ("serving.idleUnloadSeconds", 60),
        ("serving.maxCPUPercent", 50),
        ("serving.threads", 1),
        ("serving.maxQueuedRequests", 64),
        ("serving.maxBodyBytes", 4096),
        ("serving.accessLogPercent", 0),
    ],
)
def test_whatever_is_set_is_another_revision(path: str, value: Any) -> None:
    assert revision_of(make_model().with_(path, value)).name != revision_of(make_model()).name
