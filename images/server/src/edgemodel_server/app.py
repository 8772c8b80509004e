"""The endpoints: which path means what, for the server as a whole and for each of its models."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

from edgemodel_server import __version__
from edgemodel_server.errors import ApiError, Reason
from edgemodel_server.http.messages import Request, Response, error_response, json_response
from edgemodel_server.log import log_exception
from edgemodel_server.served import ServedModel
from edgemodel_server.server_metrics import render_metrics

Route = Callable[[Request], None]
Getter = Callable[[], Response]


class App:
    """Routes requests; lives on the loop's thread. ``problems`` are models that have not even a name."""

    def __init__(self, models: Sequence[ServedModel], problems: Sequence[tuple[Reason, str]]) -> None:
        self.models = tuple(models)
        self.problems = tuple(problems)
        self.draining = False
        self.count_responses: Callable[[], Mapping[str, int]] = dict
        self.count_connections: Callable[[], int] = int
        self._get: dict[str, Getter] = {
            "/v2": self._describe,
            "/v2/health/live": lambda: json_response(200, {"live": True}),
            "/v2/health/ready": self._report_ready,
            "/metrics": self._render_metrics,
        }
        self._post: dict[str, Route] = {}
        for model in self.models:
            for path in (f"/v2/models/{model.name}", f"/v2/models/{model.name}/versions/{model.version}"):
                self._add_model(path, model)

    def _add_model(self, path: str, model: ServedModel) -> None:
        self._get[path] = lambda: json_response(200, model.describe())
        self._get[f"{path}/ready"] = lambda: _report_model_ready(model)
        self._post[f"{path}/infer"] = model.infer

    def handle(self, request: Request) -> None:
        """Answer a request, at once or later; never raises."""
        try:
            self._route(request)
        except ApiError as error:
            request.answer(error_response(error.status, error.message))
        except Exception:
            log_exception("request failed", path=request.path.decode("latin-1"))
            request.answer(error_response(500, "internal error: the server's log has the details"))

    def _route(self, request: Request) -> None:
        path = _parse_path(request.path)
        infer = self._post.get(path)
        if infer is not None and request.method == b"POST":
            infer(request)
            return
        get = self._get.get(path)
        if get is not None and request.method in (b"GET", b"HEAD"):
            request.answer(get())
        elif infer is not None or get is not None:
            allowed = "POST" if infer is not None else "GET, HEAD"
            method = request.method.decode("latin-1")
            headers = f"Allow: {allowed}\r\n".encode()
            request.answer(error_response(405, f"{method} is not allowed here, only {allowed}", headers))
        else:
            raise ApiError(404, self._explain_missing(path))

    def _explain_missing(self, path: str) -> str:
        parts = path.split("/")
        if parts[:3] != ["", "v2", "models"] or len(parts) < 4:
            return f"there is nothing at {quote(path)}"
        model = next((model for model in self.models if model.name == parts[3]), None)
        if model is None:
            return f'there is no model "{quote(parts[3])}"'
        if len(parts) > 5 and parts[4] == "versions" and parts[5] != model.version:
            return f'model "{model.name}" has no version "{quote(parts[5])}", only "{model.version}"'
        return f"there is nothing at {quote(path)}"

    # -- the server ------------------------------------------------------------------------------------------

    def _describe(self) -> Response:
        return json_response(
            200, {"name": "edgemodel-server", "version": __version__, "extensions": ["binary_tensor_data"]}
        )

    def reasons(self) -> tuple[tuple[Reason, str], ...]:
        """Return why the server is not ready; empty when it is."""
        failures = tuple(model.failure for model in self.models if model.failure is not None)
        draining = ((Reason.DRAINING, "the server was told to stop"),) if self.draining else ()
        return (*draining, *self.problems, *failures)

    def _report_ready(self) -> Response:
        reasons = self.reasons()
        document: dict[str, Any] = {"ready": not reasons}
        if reasons:
            document["reasons"] = _list_reasons(reasons)
        document["provider"] = next(
            (model.prepared.model.provider for model in self.models if model.prepared), None
        )
        document["models"] = [_summarize(model) for model in self.models]
        return json_response(503 if reasons else 200, document)

    def _render_metrics(self) -> Response:
        return render_metrics(self.models, self.reasons(), self.count_responses(), self.count_connections())


def _summarize(model: ServedModel) -> dict[str, Any]:
    prepared = model.prepared
    return {
        "name": model.name,
        "version": model.version,
        "sha256": prepared.sha256 if prepared else None,
        "provider": prepared.model.provider if prepared else None,
        "ready": model.ready,
    }


def _report_model_ready(model: ServedModel) -> Response:
    if model.failure is None:
        return json_response(200, {"name": model.name, "ready": True})
    document = {"name": model.name, "ready": False, "reasons": _list_reasons((model.failure,))}
    return json_response(503, document)


def _list_reasons(reasons: Sequence[tuple[Reason, str]]) -> list[dict[str, str]]:
    return [{"reason": reason, "message": message} for reason, message in reasons]


def _parse_path(target: bytes) -> str:
    """Return the decoded path of a request's target, which may also be a whole URL (as sent to proxies)."""
    path = target.partition(b"?")[0].decode("latin-1")
    if not path.startswith("/"):
        path = "/" + path.partition("://")[2].partition("/")[2]
    if "%" in path:
        path = unquote(path)
    return path.rstrip("/") or "/"
