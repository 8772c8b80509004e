"""The lines between the operator and a build worker: JSON, one document per line.

To the worker: one request, passwords in clear: standard input is a pipe that nobody else can read, unlike
arguments and the environment. From the worker: any number of `{"progress": …}`, then exactly one
`{"result": …}` or `{"failure": …}`.
"""

from __future__ import annotations

import json

from pydantic import ValidationError

from edgemodel_operator.build.failures import BuildFailure
from edgemodel_operator.build.request import REVEAL, BuildRequest, BuildResult, Progress

MAX_REQUEST_BYTES = 4 * 1024 * 1024
MAX_LINE_BYTES = 64 * 1024

Message = Progress | BuildResult | BuildFailure


class InvalidMessage(ValueError):  # noqa: N818 - reads as the fact it states
    """A line is not what the protocol allows; the message never quotes it."""


def encode_request(request: BuildRequest) -> bytes:
    """Write the request, with its passwords, as one line."""
    return request.model_dump_json(by_alias=True, context={REVEAL: True}).encode() + b"\n"


def decode_request(line: bytes) -> BuildRequest:
    """Read a request; raises InvalidMessage that names the bad field."""
    try:
        return BuildRequest.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise InvalidMessage(f"The build request is malformed at {where}: {first['msg']}.") from None


def encode_message(message: Message) -> bytes:
    """Write one answer of the worker as a line."""
    kind = {Progress: "progress", BuildResult: "result", BuildFailure: "failure"}[type(message)]
    document = {kind: message.to_raw()}
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def decode_message(line: bytes) -> Message:
    """Read one line of the worker; raises InvalidMessage."""
    try:
        document = json.loads(line)
    except ValueError as error:
        raise InvalidMessage("The build worker sent a line that is not JSON.") from error
    kinds: dict[str, type[Progress | BuildResult | BuildFailure]] = {
        "progress": Progress,
        "result": BuildResult,
        "failure": BuildFailure,
    }
    kind = next(iter(document), "") if isinstance(document, dict) else ""
    if kind not in kinds:
        raise InvalidMessage("The build worker sent a line of no known kind.")
    try:
        return kinds[kind].model_validate(document[kind])
    except ValidationError as error:
        raise InvalidMessage(f"The build worker sent a malformed {kind}.") from error
