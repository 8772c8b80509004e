"""Files of Kubernetes objects: read as kubectl reads them, every mistake with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgemodel_operator.cli.documents import Documents, InvalidDocuments, read_documents
from support.command_line import model_document, write_documents

URL = "https://models.plant-a.local/line.onnx"
REPOSITORY = "registry.plant-a.local:5000/models/line"


def model(**changes: Any) -> dict[str, Any]:
    return model_document({"http": {"url": URL}}, REPOSITORY, **changes)


def read(tmp_path: Path, *documents: dict[str, Any]) -> Documents:
    return read_documents([write_documents(tmp_path / "objects.yaml", *documents)])


def refusal(tmp_path: Path, *documents: dict[str, Any]) -> str:
    with pytest.raises(InvalidDocuments) as caught:
        read(tmp_path, *documents).only_model()
    return str(caught.value)


def test_every_example_of_the_documentation_is_read() -> None:
    examples = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))
    assert examples
    for example in examples:
        read_documents([example])


def test_the_only_model_is_found_among_other_objects(tmp_path: Path) -> None:
    name, spec = read(tmp_path, {"apiVersion": "v1", "kind": "Namespace"}, model()).only_model()
    assert (name, spec.image.repository) == ("line-orientation", REPOSITORY)


def test_a_status_and_labels_of_the_cluster_do_no_harm(tmp_path: Path) -> None:
    exported = {**model(), "status": {"anything": 1}}
    exported["metadata"] = {"name": "line", "uid": "1", "labels": {"a": "b"}, "managedFields": []}
    assert read(tmp_path, exported).only_model()[0] == "line"


def test_none_and_several_models_are_refused(tmp_path: Path) -> None:
    assert "they hold: none" in refusal(tmp_path)
    other = {**model(), "metadata": {"name": "other"}}
    assert "they hold: line-orientation, other" in refusal(tmp_path, model(), other)
    assert "is there twice" in refusal(tmp_path, model(), model())


def test_every_mistake_of_a_spec_is_named_with_its_place(tmp_path: Path) -> None:
    wrong = model()
    wrong["spec"]["model"]["source"] = {}
    wrong["spec"]["image"]["plattforms"] = ["linux/amd64"]
    wrong["spec"]["targets"] = [{"accelerater": "cpu"}]
    del wrong["spec"]["model"]["version"]
    assert refusal(tmp_path, wrong).splitlines() == [
        'the EdgeModel "line-orientation" is invalid:',
        "* spec.model.source: give exactly one source: `http`, `s3`, `oci`, `pvc` or `configMap`",
        "* spec.model.version: required",
        "* spec.image.plattforms: unknown field",
        "* spec.targets[0].accelerator: required",
        "* spec.targets[0].accelerater: unknown field",
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"apiVersion": "edgemodel.dev/v1"}, "EdgeModel needs `apiVersion: edgemodel.dev/v1alpha1`"),
        ({"apiVersion": None}, "a document lacks `apiVersion` or `kind`"),
        ({"metadata": {}}, "lacks `metadata.name`"),
        ({"metadata": {"name": "Line"}}, "a letter first"),
        ({"spec": None}, "* spec: "),
    ],
)
def test_what_kubectl_would_refuse_is_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(tmp_path, {**model(), **change})


def test_a_file_that_is_not_yaml_or_not_there_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    for path, word in ((broken, "is not YAML"), (tmp_path / "missing.yaml", "No such file")):
        with pytest.raises(InvalidDocuments, match=word) as caught:
            read_documents([path])
        assert str(path) in str(caught.value)
    broken.write_text("- a\n- b\n")
    with pytest.raises(InvalidDocuments, match="document 1 is not a mapping"):
        read_documents([broken])


def test_classes_secrets_and_config_maps_are_read(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        yaml.safe_load((Path(__file__).parents[3] / "examples" / "accelerator-class.yaml").read_text()),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "login"},
            "data": {"username": "cGxhbnQ="},
            "stringData": {"password": "secret"},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "tiny"},
            "data": {"labels.txt": "cat"},
            "binaryData": {"model.tflite": "AAE="},
        },
    )
    assert set(found.classes) == {"example-npu"}
    assert found.secrets == {"login": {"username": b"plant", "password": b"secret"}}
    assert found.config_maps == {"tiny": {"labels.txt": b"cat", "model.tflite": b"\x00\x01"}}
    assert "secret" not in repr(found)


def test_a_secret_that_is_not_base64_is_refused_without_being_quoted(tmp_path: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "data": {"a": "hunter2!"}}
    said = refusal(tmp_path, secret)
    assert "is not base64" in said
    assert "hunter2" not in said
