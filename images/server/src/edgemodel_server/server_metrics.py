"""The metrics page of the server: which numbers there are, with their names and meanings."""

from collections.abc import Callable, Iterable, Sequence

from edgemodel_server import __version__
from edgemodel_server.errors import Reason
from edgemodel_server.exposition import Page
from edgemodel_server.http.endpoint import Endpoint
from edgemodel_server.metrics import Histogram, ModelMetrics, Result
from edgemodel_server.served import ServedModel

MetricsSource = Callable[[Page], None]
"""Adds the series of one part of the server to the page."""

_STAGES = ("verify", "load", "warm_up", "golden")
_Numbers = Sequence[tuple[dict[str, str], ModelMetrics]]


def add_state(page: Page, models: Sequence[ServedModel], reasons: Iterable[tuple[Reason, str]]) -> None:
    """Add what holds at present: the server's readiness, and what each model is."""
    _add_server(page, {reason for reason, _ in reasons})
    _add_models(page, models)


def add_work(page: Page, models: Sequence[ServedModel]) -> None:
    """Add what was done: the requests of each model, by how they ended, and what they took."""
    numbers = [({"model": model.name}, model.metrics) for model in models]
    _add_counts(page, numbers)
    _add_histograms(page, numbers)


def add_http(page: Page, endpoint: Endpoint) -> None:
    """Add the numbers of the HTTP endpoint."""
    page.add("edgemodel_server_http_responses_total", "counter", "Responses by class of status.",
             [({"code": code}, count) for code, count in endpoint.responses.items()])  # fmt: skip
    page.add("edgemodel_server_connections", "gauge", "Open connections.", [({}, len(endpoint.connections))])
    page.add("edgemodel_server_crowded_connections_total", "counter",
             "Connections that came when there were as many as may be.",
             [({}, endpoint.crowded)])  # fmt: skip


def _add_server(page: Page, reasons: set[Reason]) -> None:
    name = "edgemodel_server"
    page.add(f"{name}_build_info", "gauge", "The server's version.", [({"version": __version__}, 1)])
    page.add(
        f"{name}_ready",
        "gauge",
        "1 when every model is ready and the server is not ending.",
        [({}, not reasons)],
    )
    page.add(f"{name}_not_ready", "gauge", "1 for each reason that holds at present.",
             [({"reason": reason}, reason in reasons) for reason in Reason])  # fmt: skip


def _add_models(page: Page, models: Sequence[ServedModel]) -> None:
    name = "edgemodel_server_model"
    info = []
    stages = []
    for model in models:
        prepared = model.prepared
        info.append(({
            "model": model.name,
            "version": model.version,
            "sha256": prepared.sha256 if prepared else "",
            "platform": prepared.model.platform if prepared else "",
            "provider": prepared.model.provider if prepared else "",
        }, 1.0))  # fmt: skip
        seconds = prepared.stages if prepared else {}
        stages += [({"model": model.name, "stage": stage}, seconds.get(stage, 0.0)) for stage in _STAGES]
    page.add(f"{name}_info", "gauge", "What is served, and on which execution provider.", info)
    page.add(f"{name}_ready", "gauge", "1 when the model passed all checks.",
             [({"model": model.name}, model.ready) for model in models])  # fmt: skip
    page.add(f"{name}_not_ready", "gauge", "1 for the reason why the model is not ready.",
             [({"model": model.name, "reason": reason}, _is_failing(model, reason))
              for model in models for reason in Reason if reason is not Reason.DRAINING])  # fmt: skip
    page.add(f"{name}_loaded", "gauge", "1 when the model is in memory.",
             [({"model": model.name}, model.metrics.loaded) for model in models])  # fmt: skip
    page.add(f"{name}_memory_bytes", "gauge", "Memory that loading the model took.",
             [({"model": model.name}, model.metrics.memory_bytes) for model in models])  # fmt: skip
    page.add(f"{name}_start_seconds", "gauge", "What each stage of the start took.", stages)


def _is_failing(model: ServedModel, reason: Reason) -> bool:
    return model.failure is not None and model.failure[0] is reason


def _add_counts(page: Page, models: _Numbers) -> None:
    name = "edgemodel_server"
    page.add(f"{name}_inference_requests_total", "counter", "Inference requests by how they ended.",
             [({**labels, "result": result}, numbers.results[result])
              for labels, numbers in models for result in Result])  # fmt: skip
    page.add(f"{name}_queued_requests", "gauge", "Requests that wait for a computation or are in one.",
             [(labels, numbers.queued) for labels, numbers in models])  # fmt: skip
    page.add(f"{name}_request_bytes_total", "counter", "Bytes of inference requests.",
             [(labels, numbers.inputs_bytes) for labels, numbers in models])  # fmt: skip
    page.add(f"{name}_answer_bytes_total", "counter", "Bytes of inference answers.",
             [(labels, numbers.outputs_bytes) for labels, numbers in models])  # fmt: skip
    page.add(f"{name}_paced_seconds_total", "counter", "Time that the processor budget held work back.",
             [(labels, numbers.paced_seconds) for labels, numbers in models])  # fmt: skip


def _add_histograms(page: Page, models: _Numbers) -> None:
    def add(name: str, text: str, pick: Callable[[ModelMetrics], Histogram]) -> None:
        samples = [(labels, pick(numbers)) for labels, numbers in models]
        page.add_histograms(f"edgemodel_server_{name}", text, samples)

    add("request_duration_seconds", "From a request's last byte to its answer.", lambda one: one.requests)
    add("queue_duration_seconds", "Waiting for a computation.", lambda one: one.queue)
    add("compute_duration_seconds", "Inside the runtime.", lambda one: one.compute)
    add("batch_size", "Requests that were computed together.", lambda one: one.batch)
