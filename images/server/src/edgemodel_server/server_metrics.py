"""The metrics page of the server: which numbers there are, with their names and meanings."""

from collections.abc import Iterable, Mapping, Sequence

from edgemodel_server import __version__
from edgemodel_server.errors import Reason
from edgemodel_server.http.messages import Response
from edgemodel_server.metrics import CONTENT_TYPE, ModelMetrics, Page, Result, add_process
from edgemodel_server.served import ServedModel

_STAGES = ("verify", "load", "warm_up", "golden")


def render_metrics(
    models: Sequence[ServedModel],
    reasons: Iterable[tuple[Reason, str]],
    responses: Mapping[str, int],
    connections: int,
) -> Response:
    """Return the answer to ``GET /metrics``."""
    page = Page()
    _add_server(page, {reason for reason, _ in reasons}, responses, connections)
    _add_states(page, models)
    _add_requests(page, [({"model": model.name}, model.metrics) for model in models])
    add_process(page)
    return Response(200, (page.render(),), CONTENT_TYPE)


def _add_server(page: Page, reasons: set[Reason], responses: Mapping[str, int], connections: int) -> None:
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
    page.add(f"{name}_http_responses_total", "counter", "Responses by class of status.",
             [({"code": code}, count) for code, count in responses.items()])  # fmt: skip
    page.add(f"{name}_connections", "gauge", "Open connections.", [({}, connections)])


def _add_states(page: Page, models: Sequence[ServedModel]) -> None:
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
    page.add(f"{name}_start_seconds", "gauge", "What each stage of the start took.", stages)


def _add_requests(page: Page, models: Sequence[tuple[dict[str, str], ModelMetrics]]) -> None:
    name = "edgemodel_server"
    page.add(f"{name}_inference_requests_total", "counter", "Inference requests by how they ended.",
             [({**labels, "result": result}, numbers.results[result])
              for labels, numbers in models for result in Result])  # fmt: skip
    page.add(f"{name}_queued_requests", "gauge", "Requests that wait for a thread or are computed by one.",
             [(labels, numbers.queued) for labels, numbers in models])  # fmt: skip
    page.add(f"{name}_request_bytes_total", "counter", "Bytes of inference requests.",
             [(labels, numbers.inputs_bytes) for labels, numbers in models])  # fmt: skip
    page.add(f"{name}_answer_bytes_total", "counter", "Bytes of inference answers.",
             [(labels, numbers.outputs_bytes) for labels, numbers in models])  # fmt: skip
    page.add_histograms(f"{name}_request_duration_seconds", "From the last byte of a request to its answer.",
                        [(labels, numbers.requests) for labels, numbers in models])  # fmt: skip
    page.add_histograms(f"{name}_queue_duration_seconds", "Waiting for a thread.",
                        [(labels, numbers.queue) for labels, numbers in models])  # fmt: skip
    page.add_histograms(f"{name}_compute_duration_seconds", "Inside the runtime.",
                        [(labels, numbers.compute) for labels, numbers in models])  # fmt: skip
