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
from support.admission import pinned, pod_spec
from support.admission import review_of as review

WORKLOADS = [
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "daemonsets"),
    ("apps", "statefulsets"),
    ("batch", "jobs"),
    ("", "replicationcontrollers"),
]


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


A, B = pinned("a"), pinned("b")
TAG = "registry.plant-a.local:5000/a:1"


def starting(new: Any, old: Any, **more: Any) -> list[str]:
    """Give the images that an update from one spec to another may start."""
    document = review(new, operation="UPDATE", oldObject={"metadata": {}, "spec": old}, **more)
    return [use.image for use in parse_review(document).starting]


@pytest.mark.parametrize(
    ("new", "old", "want"),
    [
        (pod_spec(A), pod_spec(A), []),
        (pod_spec(TAG), pod_spec(TAG), []),
        (pod_spec(A, B), pod_spec(A), [B]),
        (pod_spec(B), pod_spec(A), [B]),
        (pod_spec(B, A), pod_spec(A, B), [B, A]),
        (pod_spec(A, activeDeadlineSeconds=5), pod_spec(A), []),
        (pod_spec(TAG, activeDeadlineSeconds=5), pod_spec(TAG), [TAG]),
        (pod_spec("a@sha256:1", activeDeadlineSeconds=5), pod_spec("a@sha256:1"), ["a@sha256:1"]),
        (pod_spec(A, ephemeralContainers=[{"name": "d", "image": A}]), pod_spec(A), [A]),
        (pod_spec(A, volumes=[{"name": "c0", "image": {"reference": B}}]), pod_spec(A), [B]),
    ],
)
def test_an_update_may_start_what_is_new_and_tags(new: Any, old: Any, want: list[str]) -> None:
    assert starting(new, old) == want


def test_a_creation_may_start_everything_whatever_is_said_about_before() -> None:
    document = review(pod_spec(A), oldObject={"metadata": {}, "spec": pod_spec(A)})
    assert [use.image for use in parse_review(document).starting] == [A]


@pytest.mark.parametrize(("image", "new"), [(A, []), (TAG, [])])
def test_case_34a_a_finalizer_can_go_from_an_object_that_is_being_deleted(image: str, new: list[str]) -> None:
    metadata = {"deletionTimestamp": "2026-11-21T12:00:00Z", "finalizers": ["example.com/x"]}
    spec = pod_spec(image, tolerations=[])
    document = review(spec, operation="UPDATE", oldObject={"metadata": metadata, "spec": pod_spec(image)})
    assert [use.image for use in parse_review(document).starting] == new


@pytest.mark.parametrize("marked", ["old", "new", "both"])
def test_case_34b_an_object_that_is_being_deleted_gets_no_new_image_unseen(marked: str) -> None:
    deleted, alive = {"deletionTimestamp": "2026-11-21T12:00:00Z"}, {"name": "line"}
    before = deleted if marked in {"old", "both"} else alive
    after = deleted if marked in {"new", "both"} else alive
    for spec in (pod_spec(B), pod_spec(A, B), pod_spec(A, ephemeralContainers=[{"name": "c0", "image": A}])):
        request = {"object": {"metadata": after, "spec": spec}}
        old = {"metadata": before, "spec": pod_spec(A)}
        parsed = parse_review(review(spec, operation="UPDATE", oldObject=old, **request))
        assert len(parsed.starting) == 1


def deployment(replicas: int | None, *images: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"template": {"spec": pod_spec(*images)}}
    return spec if replicas is None else spec | {"replicas": replicas}


@pytest.mark.parametrize(
    ("new", "old", "want"),
    [
        (deployment(3, A), deployment(0, A), [A]),
        (deployment(3, TAG), deployment(0, TAG), [TAG]),
        (deployment(None, A), deployment(0, A), [A]),
        (deployment(0, TAG), deployment(3, TAG), []),
        (deployment(3, TAG), deployment(3, TAG), []),
        (deployment(0, B), deployment(0, A), [B]),
    ],
)
def test_case_32_a_workload_that_grows_is_judged_and_one_that_shrinks_is_not(
    new: Any, old: Any, want: list[str]
) -> None:
    for resource in ("deployments", "replicasets", "statefulsets"):
        assert starting(new, old, group="apps", resource=resource) == want


def test_a_job_that_is_resumed_is_judged() -> None:
    template = {"template": {"spec": pod_spec(A)}}
    asleep, awake = template | {"suspend": True}, template | {"suspend": False}
    assert starting(awake, asleep, group="batch", resource="jobs") == [A]
    assert starting(asleep, awake, group="batch", resource="jobs") == []


def mirror(user: str, groups: Any, **spec: Any) -> bool:
    metadata = {"annotations": {"kubernetes.io/config.mirror": "hash"}}
    document = review(
        {},
        userInfo={"username": user, "groups": groups},
        object={"metadata": metadata, "spec": pod_spec(A, **spec)},
    )
    return parse_review(document).mirror


def test_only_a_node_itself_reports_static_pods_of_its_own() -> None:
    assert mirror("system:node:edge-1", ["system:nodes"], nodeName="edge-1")
    assert not mirror("system:node:edge-2", ["system:nodes"], nodeName="edge-1")
    assert not mirror("system:node:edge-1", ["plant"], nodeName="edge-1")
    assert not mirror("system:node:edge-1", "system:nodes", nodeName="edge-1")
    assert not mirror("kim", ["system:nodes"], nodeName="edge-1")
    assert not mirror("system:node:", ["system:nodes"])
    node = {"username": "system:node:edge-1", "groups": ["system:nodes"]}
    assert not parse_review(review(pod_spec(A, nodeName="edge-1"), userInfo=node)).mirror


@pytest.mark.parametrize(
    "metadata",
    [
        {"ownerReferences": [{"kind": "ReplicaSet", "name": "approved", "uid": "u", "controller": True}]},
        {"annotations": {"edgemodel.dev/verified": "true"}},
        {"labels": {"edgemodel.dev/model": "m"}, "name": "edgemodel-operator"},
    ],
)
def test_case_33_owners_annotations_and_names_excuse_no_image(metadata: dict[str, Any]) -> None:
    document = review({}, object={"metadata": metadata, "spec": pod_spec(A)})
    assert [use.image for use in parse_review(document).starting] == [A]


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
