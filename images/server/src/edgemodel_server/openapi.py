"""The OpenAPI 3.1 document of this server: every path, with the names of the models that are served.

It describes what is here and nothing else; a test holds it against the routes and against a running server.
Source: the OpenAPI Specification 3.1, and the schemas of the Open Inference Protocol v2.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

from edgemodel_server import __version__
from edgemodel_server.datatypes import BYTES, NUMPY_DTYPE, TensorSpec
from edgemodel_server.errors import Reason
from edgemodel_server.media import RawFormat
from edgemodel_server.preprocessing.schema import MAX_TOP
from edgemodel_server.served import ServedModel

Json: TypeAlias = dict[str, Any]

_JSON = "application/json"
_BINARY = "application/octet-stream"
_MAX_EXAMPLE_ELEMENTS = 64

_MEANINGS: Mapping[int, str] = {
    400: "The request is wrong; the sentence says what to write instead.",
    404: "There is no such model or version.",
    405: "This method is not for this path.",
    408: "The request did not arrive in time.",
    413: "The body is larger than the server takes.",
    415: "The body is compressed, or of a media type that the model takes no input from.",
    417: "The only supported expectation is 100-continue.",
    431: "The request line and headers are too large.",
    500: "The computation failed; the server's log has the details.",
    501: "The body's Transfer-Encoding is not supported.",
    503: "Not ready, or too many requests wait already: try again.",
    504: "The deadline passed before the answer was there.",
}
_ANY_REQUEST = (400, 405, 408, 413, 415, 417, 431, 500, 501, 503)
"""What the HTTP endpoint itself may answer, on any path."""


def make_document(models: Sequence[ServedModel]) -> Json:
    """Return the document for a server of these models."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgemodel-server",
            "version": __version__,
            "summary": "Open Inference Protocol v2 over REST",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "server"}, {"name": "models"}, {"name": "observation"}],
        "paths": _server_paths() | (_model_paths(models) if models else {}),
        "components": {
            "schemas": _SCHEMAS,
            "parameters": {
                "model": _path_parameter("model", sorted(model.name for model in models)),
                "version": _path_parameter("version", sorted({model.version for model in models})),
            } if models else {},
        },
    }  # fmt: skip


# -- paths ---------------------------------------------------------------------------------------------------


def _server_paths() -> Json:
    return {
        "/v2": {"get": _get("describeServer", "server", "Name, version and extensions", "ServerMetadata")},
        "/v2/health/live": {"get": _get("isLive", "server", "Whether the process works", "Live")},
        "/v2/health/ready": {
            "get": _get("isReady", "server", "Whether all models are ready, and why not", "Ready", 503)
        },
        "/v2/models": {"get": _get("listModels", "models", "The names of the models", "Models")},
        "/v2/repository/index": {"post": _index_operation()},
        "/metrics": {"get": _metrics_operation()},
        "/openapi.json": {"get": _get("describeApi", "observation", "This document", None)},
    }


def _model_paths(models: Sequence[ServedModel]) -> Json:
    paths: Json = {}
    for path, suffix, names in (
        ("/v2/models/{model}", "", ("model",)),
        ("/v2/models/{model}/versions/{version}", "Version", ("model", "version")),
    ):
        parameters = [{"$ref": f"#/components/parameters/{name}"} for name in names]
        describe = _get(f"describeModel{suffix}", "models", "Inputs and outputs", "ModelMetadata")
        describe["responses"] |= _errors((404, 503))
        ready = _get(f"isModelReady{suffix}", "models", "Whether the model is ready", "ModelReady", 503)
        ready["responses"] |= _errors((404,))
        paths[path] = {"parameters": parameters, "get": describe}
        paths[f"{path}/ready"] = {"parameters": parameters, "get": ready}
        infer = _infer_operation(f"infer{suffix}")
        examples = _make_examples(models)
        if examples:
            infer["requestBody"]["content"][_JSON]["examples"] = examples
        paths[f"{path}/infer"] = {"parameters": parameters, "post": infer}
    for verb in ("load", "unload"):
        paths[f"/v2/repository/models/{{model}}/{verb}"] = {
            "parameters": [{"$ref": "#/components/parameters/model"}],
            "post": {
                "operationId": f"{verb}Model",
                "tags": ["models"],
                "summary": "Refused: models are chosen when the server starts",
                "responses": _errors({*_ANY_REQUEST, 404}),
            },
        }
    return paths


def _get(name: str, tag: str, summary: str, schema: str | None, *also: int) -> Json:
    """Return a GET operation; ``also`` are other statuses that answer with the same schema as 200."""
    content = {_JSON: {"schema": _ref(schema) if schema else {"type": "object"}}}
    responses = _errors(_ANY_REQUEST) | {"200": {"description": summary, "content": content}}
    for status in also:
        responses[str(status)] = {"description": "Not ready", "content": content}
    return {"operationId": name, "tags": [tag], "summary": summary, "responses": responses}


def _index_operation() -> Json:
    return {
        "operationId": "indexModels",
        "tags": ["models"],
        "summary": "The models with their states, or the ready ones only",
        "requestBody": {"content": {_JSON: {"schema": _ref("IndexRequest")}}},
        "responses": _errors(_ANY_REQUEST) | {
            "200": {"description": "The index", "content": {_JSON: {"schema": _ref("Index")}}}
        },
    }  # fmt: skip


def _metrics_operation() -> Json:
    text: Json = {"schema": {"type": "string"}}
    content = {"text/plain": text, "application/openmetrics-text": text}
    return {
        "operationId": "readMetrics",
        "tags": ["observation"],
        "summary": "Metrics for Prometheus, in the format that Accept asks for",
        "responses": _errors(_ANY_REQUEST) | {"200": {"description": "The page", "content": content}},
    }


_PICTURES: Mapping[str, str] = {
    "image/jpeg": "A JPEG file, for a model whose manifest declares preprocessing.",
    "image/png": "A PNG file, as above.",
    "image/x-raw": "The pixels, row by row; the type's parameters are width, height and format: "
    + ", ".join(RawFormat),
}


def _query_parameter(name: str, text: str, schema: Json | None = None) -> Json:
    # Tensors have their wishes in the JSON and no query: what a schema forbade would be passed over there.
    described = f"For a picture: {text}"
    return {"name": name, "in": "query", "description": described, "schema": schema or {"type": "string"}}


_PICTURE_QUERY: Sequence[Json] = (
    _query_parameter("top", f"how many classes to tell, to {MAX_TOP}; 0 for tensors."),
    _query_parameter("output", "the tensors to answer with.", {"type": "array", "items": {"type": "string"}}),
    _query_parameter("binary_data_output", "true for binary tensors in the answer."),
)


def _infer_operation(name: str) -> Json:
    length = {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "Length in bytes of the JSON at the start of the body, where binary tensors follow "
        "it. 0: the whole body is the raw data of the only input.",
        "schema": {"type": "integer", "minimum": 0},
    }
    answer_length = {
        "description": "Length in bytes of the JSON at the start of the body.",
        "schema": {"type": "integer", "minimum": 1},
    }
    return {
        "operationId": name,
        "tags": ["models"],
        "summary": "Compute outputs from inputs",
        "parameters": [length, *_PICTURE_QUERY],
        "requestBody": {
            "content": {
                _JSON: {"schema": _ref("InferRequest")},
                _BINARY: {"schema": {"description": "JSON (InferRequest), then the binary tensors in the "
                                                    "order of the inputs: raw, little-endian."}},
                **{kind: {"schema": {"description": text}} for kind, text in _PICTURES.items()},
            },
        },
        "responses": _errors({*_ANY_REQUEST, 404, 504}) | {
            "200": {
                "description": "The outputs; binary where the request asks for that.",
                "headers": {"Inference-Header-Content-Length": answer_length},
                "content": {_JSON: {"schema": _ref("InferAnswer")}, _BINARY: {}},
            }
        },
    }  # fmt: skip


def _make_examples(models: Sequence[ServedModel]) -> Json:
    """Return a request of zeros for each model whose tensors are small enough to be looked at."""
    examples: Json = {}
    for model in models:
        specs = model.require_model().signature.inputs.values() if model.ready else ()
        inputs = [_make_example(spec) for spec in specs]
        if inputs and sum(len(entry["data"]) for entry in inputs) <= _MAX_EXAMPLE_ELEMENTS:
            examples[model.name] = {"summary": f"for {model.name}", "value": {"inputs": inputs}}
    return examples


def _make_example(spec: TensorSpec) -> Json:
    shape = [1 if size == -1 else size for size in spec.shape]
    zero = "" if spec.datatype == BYTES else False if spec.datatype == "BOOL" else 0
    data = [zero] * min(prod(shape), _MAX_EXAMPLE_ELEMENTS + 1)
    return {"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": data}


def _errors(statuses: Iterable[int]) -> Json:
    content = {_JSON: {"schema": _ref("Error")}}
    answers: Json = {
        str(status): {"description": _MEANINGS[status], "content": content} for status in sorted(statuses)
    }
    if "503" in answers:
        seconds = {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}
        answers["503"] |= {"headers": {"Retry-After": seconds}}
    return answers


def _path_parameter(name: str, values: Sequence[str]) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": [*values]}}


# -- schemas -------------------------------------------------------------------------------------------------


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> Json:
    return {"type": "object", "required": [*required], "properties": {**required, **(optional or {})}}


def _array(items: Mapping[str, Any]) -> Json:
    return {"type": "array", "items": items}


_STRING: Json = {"type": "string"}
_BOOLEAN: Json = {"type": "boolean"}
_SIZE: Json = {"type": "integer", "minimum": 0}
_DATATYPE: Json = {"type": "string", "enum": [*NUMPY_DTYPE]}
_PARAMETERS: Json = {"type": ["object", "null"]}

_SCHEMAS: Json = {
    "Error": _object({"error": _STRING}),
    "ServerMetadata": _object({"name": _STRING, "version": _STRING, "extensions": _array(_STRING)}),
    "Live": _object({"live": {"const": True}}),
    "Reason": _object({"reason": {"type": "string", "enum": [*Reason]}, "message": _STRING}),
    "Ready": _object(
        {
            "ready": _BOOLEAN,
            "provider": {"type": ["string", "null"]},
            "models": _array(_ref("ModelSummary")),
        },
        {"reasons": _array(_ref("Reason"))},
    ),
    "ModelSummary": _object(
        {
            "name": _STRING,
            "version": _STRING,
            "sha256": {"type": ["string", "null"]},
            "provider": {"type": ["string", "null"]},
            "ready": _BOOLEAN,
        }
    ),
    "ModelReady": _object({"name": _STRING, "ready": _BOOLEAN}, {"reasons": _array(_ref("Reason"))}),
    "Models": _object({"models": _array(_STRING)}),
    "IndexRequest": _object({}, {"ready": _BOOLEAN}),
    "Index": _array(
        _object(
            {
                "name": _STRING,
                "version": _STRING,
                "state": {"type": "string", "enum": ["READY", "UNAVAILABLE"]},
                "reason": _STRING,
            }
        )
    ),
    "ModelMetadata": _object(
        {
            "name": _STRING,
            "versions": _array(_STRING),
            "platform": _STRING,
            "inputs": _array(_ref("TensorMetadata")),
            "outputs": _array(_ref("TensorMetadata")),
        }
    ),
    "TensorMetadata": _object(
        {
            "name": _STRING,
            "datatype": _DATATYPE,
            "shape": {"description": "-1: any size", **_array({"type": "integer", "minimum": -1})},
        },
        {
            "parameters": {
                "description": "of a quantized tensor: number = scale * (integer - zero_point)",
                **_object({"scale": {"type": "number"}, "zero_point": {"type": "integer"}}),
            }
        },
    ),
    "InferRequest": _object(
        {"inputs": _array(_ref("InputTensor"))},
        {
            "id": {"type": ["string", "null"]},
            "outputs": {"oneOf": [{"type": "null"}, _array(_ref("WantedOutput"))]},
            "parameters": {**_PARAMETERS, "properties": {"binary_data_output": _BOOLEAN}},
        },
    ),
    "InputTensor": _object(
        {"name": _STRING, "datatype": _DATATYPE, "shape": _array(_SIZE)},
        {"data": _ref("Data"), "parameters": {**_PARAMETERS, "properties": {"binary_data_size": _SIZE}}},
    ),
    "Data": {
        "description": "The elements, flat in row-major order or nested as the shape.",
        "type": "array",
        "items": {"type": ["boolean", "number", "string", "array"]},
    },
    "WantedOutput": _object(
        {"name": _STRING}, {"parameters": {**_PARAMETERS, "properties": {"binary_data": _BOOLEAN}}}
    ),
    "InferAnswer": _object(
        {"model_name": _STRING, "model_version": _STRING, "outputs": _array(_ref("OutputTensor"))},
        {
            "id": _STRING,
            "parameters": {
                "description": "Of a picture: its size, and how it was scaled and moved into the input.",
                "type": "object",
            },
        },
    ),
    "OutputTensor": _object(
        {"name": _STRING, "datatype": _DATATYPE, "shape": _array(_SIZE)},
        {
            "data": _ref("Data"),
            "parameters": {"type": "object", "properties": {"binary_data_size": _SIZE}},
        },
    ),
}
