"""What this server is and which models it has: the answers that REST and gRPC give alike.

Source: Open Inference Protocol v2, "Server Metadata", and the index of its model repository extension.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from edgemodel_server import __version__
from edgemodel_server.errors import ApiError
from edgemodel_server.served import ServedModel

EXTENSIONS = ("binary_tensor_data",)
"""``model_repository`` is not among them: it would promise load and unload as well, not the index alone."""

NO_CONTROL = "models are chosen by the command line when the server starts, not loaded or unloaded on request"

_READY, _UNAVAILABLE = "READY", "UNAVAILABLE"


def describe_server() -> dict[str, Any]:
    """Return the server metadata answer."""
    return {"name": "edgemodel-server", "version": __version__, "extensions": list(EXTENSIONS)}


def index_models(models: Sequence[ServedModel], *, only_ready: bool = False) -> list[dict[str, str]]:
    """Return the repository index: every model with its version, its state, and the reason for that."""
    return [_index_model(model) for model in models if model.ready or not only_ready]


def parse_index_request(body: bytes) -> bool:
    """Return whether only ready models are asked for; an empty body asks for all. Raises ApiError(400)."""
    if not body.strip():
        return False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the request is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise ApiError(400, 'the request must be a JSON object, as {"ready": true}')
    ready = document.get("ready", False)
    if not isinstance(ready, bool):
        raise ApiError(400, "ready must be true or false")
    return ready


def _index_model(model: ServedModel) -> dict[str, str]:
    state = _READY if model.ready else _UNAVAILABLE
    reason = "" if model.failure is None else f"{model.failure[0]}: {model.failure[1]}"
    return {"name": model.name, "version": model.version, "state": state, "reason": reason}
