"""What runs: from pods as the API server gives them to the images that have to be vouched for."""

from __future__ import annotations

from typing import Any

import pytest

from edgemodel_operator.core.audit_uses import ImageUse, subject_of, uses_of

A, B = (f"sha256:{letter * 64}" for letter in "ab")
REPOSITORY = "registry.plant-a.local:5000/models/line"


def pod(**parts: Any) -> dict[str, Any]:
    metadata = {"namespace": "plant-a", "name": "line-x", **parts.pop("metadata", {})}
    return {"metadata": metadata, "spec": {"nodeName": "edge-a", **parts.pop("spec", {})}, **parts}


def use(image: str, running: str = "", container: str = "containers[main]") -> ImageUse:
    return ImageUse("plant-a", "line-x", container, "edge-a", image, running)


def test_every_place_that_uses_an_image_is_found_with_what_the_node_reports() -> None:
    found = uses_of(
        pod(
            spec={
                "initContainers": [{"name": "prepare", "image": "i"}],
                "containers": [{"name": "main", "image": "c"}, {"name": "side", "image": "s"}],
                "ephemeralContainers": [{"name": "debug", "image": "e"}],
                "volumes": [{"name": "data", "image": {"reference": "v"}}, {"name": "tmp", "emptyDir": {}}],
            },
            status={
                "phase": "Running",
                "initContainerStatuses": [{"name": "prepare", "imageID": A}],
                # The order of reports is the node's own.
                "containerStatuses": [{"name": "side", "imageID": ""}, {"name": "main", "imageID": f"r@{B}"}],
                "ephemeralContainerStatuses": [{"name": "debug", "imageID": f"docker-pullable://r@{A}"}],
            },
        )
    )
    assert [(one.container, one.image, one.running) for one in found] == [
        ("initContainers[prepare]", "i", A),
        ("containers[main]", "c", f"r@{B}"),
        ("containers[side]", "s", ""),
        ("ephemeralContainers[debug]", "e", f"r@{A}"),
        ("volumes[data].image", "v", ""),
    ]
    assert {(one.namespace, one.pod, one.node, one.static) for one in found} == {
        ("plant-a", "line-x", "edge-a", False)
    }


def test_the_pod_of_a_static_pod_is_known_by_the_mark_of_its_kubelet() -> None:
    mirror = pod(
        metadata={"annotations": {"kubernetes.io/config.mirror": "7c1"}},
        spec={"containers": [{"name": "main", "image": "c"}]},
    )
    assert [one.static for one in uses_of(mirror)] == [True]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_runs_nothing(phase: str) -> None:
    assert uses_of(pod(spec={"containers": [{"name": "c", "image": "i"}]}, status={"phase": phase})) == ()


@pytest.mark.parametrize("empty", [{}, {"metadata": None, "spec": None, "status": None}])
def test_a_pod_without_anything_in_it_is_no_error(empty: dict[str, Any]) -> None:
    assert uses_of(empty) == ()


def test_the_digest_in_the_pod_counts_and_the_node_confirms_it() -> None:
    subject = subject_of(use(f"{REPOSITORY}@{A}", f"{REPOSITORY}@{A}"))
    assert subject is not None
    assert (subject.name, str(subject.image), subject.other) == (REPOSITORY, f"{REPOSITORY}@{A}", "")


def test_another_digest_on_the_node_has_to_be_a_part_of_the_one_in_the_pod() -> None:
    subject = subject_of(use(f"{REPOSITORY}:1@{A}", f"mirror.plant-a.local/line@{B}"))
    assert subject is not None
    assert (str(subject.image), subject.other) == (f"{REPOSITORY}@{A}", B)
    assert str(subject.reported) == f"mirror.plant-a.local/line@{B}"


def test_a_bare_digest_on_the_node_has_to_be_a_part_as_well() -> None:
    subject = subject_of(use(f"{REPOSITORY}@{A}", B))
    assert subject is not None
    assert (str(subject.image), subject.other, subject.reported) == (f"{REPOSITORY}@{A}", B, None)


def test_of_a_tag_what_the_node_runs_counts_under_the_name_in_the_pod() -> None:
    """The node may know the same content by another repository; a signature binds the one in the pod."""
    subject = subject_of(use(f"{REPOSITORY}:1", f"other.plant-a.local/x@{B}"))
    assert subject is not None
    assert (subject.name, str(subject.image)) == (REPOSITORY, f"{REPOSITORY}@{B}")


def test_a_tag_that_runs_what_no_registry_knows_was_imported_by_hand() -> None:
    subject = subject_of(use(f"{REPOSITORY}:1", B))
    assert subject is not None
    assert (subject.image, subject.reason) == (None, "NotFromRegistry")
    assert B in subject.message


def test_a_name_without_registry_is_judged_by_what_the_node_pulled() -> None:
    subject = subject_of(use("nginx", f"hub.plant-a.local/library/nginx@{A}"))
    assert subject is not None
    assert (subject.name, str(subject.image)) == (
        "hub.plant-a.local/library/nginx",
        f"hub.plant-a.local/library/nginx@{A}",
    )


def test_a_tag_that_runs_nothing_yet_is_left_alone_but_a_volume_is_used_and_never_reported() -> None:
    assert subject_of(use(f"{REPOSITORY}:1")) is None
    volume = subject_of(use(f"{REPOSITORY}:1", container="volumes[data].image"))
    assert volume is not None
    assert (volume.image, volume.reason) == (None, "NoDigest")


def test_a_volume_with_a_digest_is_judged_by_it() -> None:
    volume = subject_of(use(f"{REPOSITORY}@{A}", container="volumes[data].image"))
    assert volume is not None
    assert str(volume.image) == f"{REPOSITORY}@{A}"
