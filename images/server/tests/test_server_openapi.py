"""The OpenAPI document: well-formed, complete, and true of a running server, which no request makes fail."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from serving import ModelMaker, ServerProcess, StartServer

CONFIGURATION = """
# Whether data fits its shape, and both fit the model, is nothing that a schema can say.
[[operations]]
include-operation-id = ["infer", "inferVersion", "loadModel", "unloadModel"]
checks.positive_data_acceptance.enabled = false
"""


@pytest.fixture(scope="module")
def server(
    models: ModelMaker, tmp_path_factory: pytest.TempPathFactory, module_servers: StartServer
) -> ServerProcess:
    root = tmp_path_factory.mktemp("openapi")
    models.write_manifest(models.dense(root / "dense" / "model.onnx").parent, "dense", "7")
    models.write_manifest(models.identity(root / "text" / "model.onnx", "BYTES", ["n"]).parent, "text", "8")
    server = module_servers("--model-root", root)
    while server.ask("GET", "/v2/health/ready").status != 200:
        assert server.process.poll() is None
    return server


@pytest.fixture(scope="module")
def document(server: ServerProcess) -> dict[str, Any]:
    reply = server.ask("GET", "/openapi.json")
    assert reply.status == 200
    parsed: dict[str, Any] = reply.json
    return parsed


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_a_server_without_models_has_a_valid_document(start_server: StartServer, tmp_path: Path) -> None:
    document = start_server("--model-root", tmp_path).ask("GET", "/openapi.json").json
    OpenAPIV31SpecValidator(document).validate()
    assert not [path for path in document["paths"] if "{" in path]


def test_the_models_that_are_served_are_named(document: dict[str, Any]) -> None:
    parameters = document["components"]["parameters"]
    assert parameters["model"]["schema"]["enum"] == ["dense", "text"]
    assert parameters["version"]["schema"]["enum"] == ["7", "8"]


def test_every_path_has_the_methods_that_it_is_said_to_have(
    server: ServerProcess, document: dict[str, Any]
) -> None:
    for template, item in document["paths"].items():
        path = template.format(model="dense", version="7")
        for method in ("GET", "POST"):
            reply = server.ask(method, path, b"{}")
            said = method.lower() in item
            assert reply.status != 404, path
            assert (reply.status != 405) is (said and not path.endswith("load")), (method, path)


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [
        item[method]["operationId"]
        for item in document["paths"].values()
        for method in ("get", "post")
        if method in item
    ]
    assert len(set(names)) == len(names)


def test_the_examples_are_answered(server: ServerProcess, document: dict[str, Any]) -> None:
    content = document["paths"]["/v2/models/{model}/infer"]["post"]["requestBody"]["content"]
    examples = content["application/json"]["examples"]
    assert examples.keys() == {"dense", "text"}
    for model, example in examples.items():
        assert server.infer(model, example["value"]).status == 200


def test_no_request_makes_the_server_fail_or_answer_what_it_does_not_say(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    # With one input, a body of any kind could be taken for its raw bytes.
    server = start_server("--model", models.identities(tmp_path / "many.onnx"))
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run"]
    command += [f"http://127.0.0.1:{server.port}/openapi.json", "--max-examples", "15"]
    command += ["--generation-deterministic", "--no-color", "--request-timeout", "60"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated is not None, done.stdout
    assert int(generated.group(1)) > 200
    assert server.metric('edgemodel_server_http_responses_total{code="5xx"}') == 0
    assert server.process.poll() is None
