"""The metrics page: what Prometheus reads, in both of its formats, and what the numbers count."""

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from serving import ServerProcess

from edgemodel_server.errors import Reason
from edgemodel_server.exposition import Page, wants_openmetrics
from edgemodel_server.metrics import BATCH_SIZES, SECONDS, Histogram, Result

Parse = Callable[[str], Iterable[Metric]]

DENSE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"
)


def read_page(server: ServerProcess, accept: str) -> dict[str, Metric]:
    """Return the families of the page by the name of their samples' family."""
    reply = server.ask("GET", "/metrics", Accept=accept)
    assert reply.status == 200
    openmetrics = reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics == reply.body.endswith(b"# EOF\n")
    parse: Parse = parse_openmetrics if openmetrics else parse_text
    return {family.name: family for family in parse(reply.body.decode())}


@pytest.mark.parametrize("accept", ["text/plain", PROMETHEUS])
def test_both_formats_are_what_prometheus_reads(dense_server: ServerProcess, accept: str) -> None:
    assert dense_server.infer("dense", DENSE).status == 200
    families = read_page(dense_server, accept)
    assert families["edgemodel_server_request_duration_seconds"].type == "histogram"
    assert families["edgemodel_server_inference_requests"].type == "counter"
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6
    for family in families.values():
        assert family.documentation
        assert len({str(sample) for sample in family.samples}) == len(family.samples)


def test_both_formats_say_the_same(dense_server: ServerProcess) -> None:
    text, openmetrics = read_page(dense_server, "text/plain"), read_page(dense_server, PROMETHEUS)
    assert text.keys() == openmetrics.keys()
    for name, family in text.items():
        assert family.type == openmetrics[name].type
        labels = [(sample.name, sample.labels) for sample in family.samples]
        assert labels == [(sample.name, sample.labels) for sample in openmetrics[name].samples]


@pytest.mark.parametrize(
    ("accept", "want"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("text/plain, application/openmetrics-text", True),
        ("APPLICATION/openmetrics-text;Q=0.5", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text; q=0.3, text/plain; q=0.9", False),
        ("application/openmetrics-text;q=much", False),
        (PROMETHEUS, True),
    ],
)
def test_openmetrics_is_for_those_who_prefer_it(accept: str, want: bool) -> None:
    assert wants_openmetrics(accept.encode()) is want


@given(st.binary())
def test_no_accept_header_is_too_strange(accept: bytes) -> None:
    assert wants_openmetrics(accept) in (True, False)


def test_every_reason_and_every_result_has_a_series(dense_server: ServerProcess) -> None:
    families = read_page(dense_server, "text/plain")

    def labels(name: str, label: str) -> list[str]:
        return [sample.labels[label] for sample in families[name].samples]

    assert labels("edgemodel_server_not_ready", "reason") == list(Reason)
    assert labels("edgemodel_server_model_not_ready", "reason") == [
        reason for reason in Reason if reason is not Reason.DRAINING
    ]
    assert labels("edgemodel_server_inference_requests", "result") == list(Result)


def test_refusals_are_counted_by_reason(dense_server: ServerProcess) -> None:
    series = 'edgemodel_server_inference_requests_total{model="dense",result="refused"}'
    before = dense_server.metric(series)
    assert dense_server.infer("dense", {"inputs": []}).status == 400
    assert dense_server.metric(series) == before + 1


@pytest.mark.parametrize("bounds", [SECONDS, BATCH_SIZES])
@given(values=st.lists(st.tuples(st.floats(0, 40), st.integers(1, 9))))
def test_histograms_count_every_value_and_cumulate(
    bounds: tuple[float, ...], values: list[tuple[float, int]]
) -> None:
    histogram = Histogram(bounds)
    for value, count in values:
        histogram.observe(value, count)
    for openmetrics in (False, True):
        page = Page(openmetrics=openmetrics)
        page.add_histograms("a_seconds", "Text.", [({"model": 'quo"te\\\n'}, histogram)])
        parse: Parse = parse_openmetrics if openmetrics else parse_text
        (family,) = parse(page.render().decode())
        counts = {one.labels["le"]: one.value for one in family.samples if one.name.endswith("_bucket")}
        for bound in bounds:
            assert counts[repr(bound)] == sum(count for value, count in values if value <= bound)
        assert counts["+Inf"] == sum(count for _, count in values)
        assert all(one.labels["model"] == 'quo"te\\\n' for one in family.samples)
