"""Reading AdmissionReviews: every image is found, and whatever is odd is an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.admission.review import (
    MAX_MESSAGE,
    MAX_WARNINGS,
    ImageUse,
    InvalidReview,
    make_answer,
    parse_review,
    request_uid,
)

WORKLOADS = [
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "daemonsets"),
    ("apps", "statefulsets"),
    ("batch", "jobs"),
    ("", "replicationcontrollers"),
]


def pod_spec(*images: str, **more: Any) -> dict[str, Any]:
    return {"containers": [{"name": f"c{n}", "image": image} for n, image in enumerate(images)]} | more


def review(spec: Any, *, group: str = "", resource: str = "pods", **request: Any) -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "operation": "CREATE",
            "resource": {"group": group, "version": "v1", "resource": resource},
            "namespace": "plant-a",
            "name": "line",
            "userInfo": {"username": "kim"},
            "object": {"metadata": {"name": "line"}, "spec": spec},
            **request,
        },
    }


def test_a_pods_containers_of_all_kinds_and_its_image_volumes_are_found() -> None:
    spec = pod_spec(
        "a",
        initContainers=[{"name": "setup", "image": "b", "restartPolicy": "Always"}],
        ephemeralContainers=[{"name": "debug", "image": "c"}],
        volumes=[{"name": "weights", "image": {"reference": "d"}}, {"name": "tmp", "emptyDir": {}}],
    )
    assert set(parse_review(review(spec)).images) == {
        ImageUse("containers[c0]", "a"),
        ImageUse("initContainers[setup]", "b"),
        ImageUse("ephemeralContainers[debug]", "c"),
        ImageUse("volumes[weights].image", "d"),
    }


@pytest.mark.parametrize(("group", "resource"), WORKLOADS)
def test_the_template_of_every_workload_is_read(group: str, resource: str) -> None:
    document = review({"template": {"spec": pod_spec("a", "b")}}, group=group, resource=resource)
    assert [use.image for use in parse_review(document).images] == ["a", "b"]


def test_the_template_in_the_template_of_a_cron_job_is_read() -> None:
    spec = {"jobTemplate": {"spec": {"template": {"spec": pod_spec("a")}}}}
    parsed = parse_review(review(spec, group="batch", resource="cronjobs"))
    assert [use.image for use in parsed.images] == ["a"]


def test_a_replication_controller_without_template_runs_nothing() -> None:
    assert parse_review(review({}, resource="replicationcontrollers")).images == ()


def test_the_facts_around_the_images_are_read() -> None:
    parsed = parse_review(review(pod_spec("a"), subResource="ephemeralcontainers", dryRun=True))
    assert parsed.subject == "pods/ephemeralcontainers plant-a/line"
    assert (parsed.user, parsed.dry_run, parsed.operation) == ("kim", True, "CREATE")


def test_a_pod_without_a_name_yet_is_called_by_its_prefix() -> None:
    document = review(pod_spec("a"), name="")
    document["request"]["object"]["metadata"] = {"generateName": "line-"}
    assert parse_review(document).name == "line-*"


@pytest.mark.parametrize(
    ("new", "old", "want"),
    [
        (pod_spec("a"), pod_spec("a"), True),
        (pod_spec("a", "b"), pod_spec("a"), False),
        (pod_spec("b"), pod_spec("a"), False),
        (pod_spec("a"), pod_spec("a", ephemeralContainers=[{"name": "d", "image": "a"}]), False),
    ],
)
def test_an_update_that_leaves_every_image_alone_is_seen(new: Any, old: Any, *, want: bool) -> None:
    parsed = parse_review(review(new, operation="UPDATE", oldObject={"metadata": {}, "spec": old}))
    assert parsed.images_unchanged is want


def test_a_creation_is_never_unchanged() -> None:
    assert not parse_review(review(pod_spec("a"), oldObject={"spec": pod_spec("a")})).images_unchanged


@pytest.mark.parametrize(
    "spec",
    [
        None,
        [],
        {"containers": {"name": "x"}},
        {"containers": ["nginx"]},
        {"containers": [{"name": "x"}]},
        {"containers": [{"name": "x", "image": ""}]},
        {"containers": [{"name": "x", "image": ["a"]}]},
        pod_spec("a", volumes=[{"name": "w", "image": {}}]),
        pod_spec("a", volumes=[{"name": "w", "image": "x"}]),
        pod_spec("a", initContainers="x"),
    ],
)
def test_pod_specs_that_do_not_say_which_images_they_use_are_refused(spec: Any) -> None:
    with pytest.raises(InvalidReview):
        parse_review(review(spec))


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "CONNECT"},
        {"operation": None},
        {"resource": {"group": "example.com", "resource": "widgets"}},
        {"resource": {"group": "apps", "resource": "pods"}},
        {"resource": None},
        {"object": None},
        {"operation": "UPDATE", "oldObject": None},
        {"uid": ""},
        {"uid": "x" * 129},
        {"namespace": ""},
        {"userInfo": "kim"},
    ],
)
def test_requests_that_are_not_understood_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidReview):
        parse_review(review(pod_spec("a"), **change))


@pytest.mark.parametrize("change", [{"apiVersion": "admission.k8s.io/v1beta1"}, {"kind": "Pod"}])
def test_other_documents_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidReview):
        parse_review(review(pod_spec("a")) | change)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON)
def test_any_document_is_either_understood_or_refused_with_a_sentence(document: Any) -> None:
    for read in (parse_review, request_uid):
        with pytest.raises(InvalidReview, match=r"\w"):
            read(document)


@given(
    st.dictionaries(
        st.sampled_from(["containers", "initContainers", "ephemeralContainers", "volumes", "other"]), _JSON
    )
)
def test_any_pod_spec_is_either_understood_or_refused(spec: Any) -> None:
    try:
        parsed = parse_review(review(spec))
    except InvalidReview:
        return
    assert all(use.image for use in parsed.images)


_IMAGE = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(
    containers=st.lists(_IMAGE, max_size=5),
    init=st.lists(_IMAGE, max_size=5),
    ephemeral=st.lists(_IMAGE, max_size=5),
    volumes=st.lists(_IMAGE, max_size=5),
)
def test_no_image_is_ever_overlooked(
    containers: list[str], init: list[str], ephemeral: list[str], volumes: list[str]
) -> None:
    spec = {
        "containers": [{"name": "x", "image": image} for image in containers],
        "initContainers": [{"name": "x", "image": image} for image in init],
        "ephemeralContainers": [{"name": "x", "image": image} for image in ephemeral],
        "volumes": [{"name": "x", "image": {"reference": image}} for image in volumes],
    }
    found = [use.image for use in parse_review(json.loads(json.dumps(review(spec)))).images]
    assert sorted(found) == sorted([*containers, *init, *ephemeral, *volumes])


def test_an_answer_repeats_the_uid_and_bounds_its_texts() -> None:
    answer = make_answer("u-1", allowed=False, message="x" * 9000, warnings=["w" * 9000] * 20)["response"]
    assert answer["uid"] == "u-1"
    assert answer["allowed"] is False
    assert len(answer["status"]["message"]) == MAX_MESSAGE
    assert len(answer["warnings"]) == MAX_WARNINGS


def test_an_admission_carries_no_status() -> None:
    assert make_answer("u-1", allowed=True)["response"] == {"uid": "u-1", "allowed": True}
