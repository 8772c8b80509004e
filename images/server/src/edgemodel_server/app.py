"""The endpoints: which path means what, for the server as a whole and for each of its models."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, unquote

from edgemodel_server.errors import ApiError, Reason
from edgemodel_server.exposition import Page, wants_openmetrics
from edgemodel_server.http.messages import Request, Response, error_response, json_response
from edgemodel_server.http.targets import strip_target
from edgemodel_server.log import log_exception
from edgemodel_server.media import is_picture
from edgemodel_server.openapi import make_document
from edgemodel_server.picture_requests import CONTENT_TYPE, PictureInference, PictureQueue
from edgemodel_server.repository import NO_CONTROL, describe_server, index_models, parse_index_request
from edgemodel_server.rest import RestInference
from edgemodel_server.served import ServedModel
from edgemodel_server.server_metrics import MetricsSource, add_state, add_work

Route = Callable[[Request], None]
Respond = Callable[[Request], Response]


class App:
    """Routes requests; lives on the loop's thread. ``problems`` are models that have not even a name."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        problems: Sequence[tuple[Reason, str]],
        pictures: PictureQueue,
    ) -> None:
        self.models = tuple(models)
        self.problems = tuple(problems)
        self.draining = False
        self._sources: list[MetricsSource] = [pictures.add_metrics]
        self._get: dict[str, Respond] = {
            "/v2": lambda _: json_response(200, describe_server()),
            "/v2/health/live": lambda _: json_response(200, {"live": True}),
            "/v2/health/ready": lambda _: self._report_ready(),
            "/v2/models": lambda _: json_response(200, {"models": [model.name for model in self.models]}),
            "/metrics": self._render_metrics,
            "/openapi.json": lambda _: json_response(200, make_document(self.models)),
        }
        self._post: dict[str, Route] = {"/v2/repository/index": self._index}
        for model in self.models:
            infer = _by_content_type(RestInference(model).infer, PictureInference(model, pictures).infer)
            for path in (f"/v2/models/{model.name}", f"/v2/models/{model.name}/versions/{model.version}"):
                self._add_model(path, model, infer)
            for verb in ("load", "unload"):
                self._post[f"/v2/repository/models/{model.name}/{verb}"] = _refuse_control

    def _add_model(self, path: str, model: ServedModel, infer: Route) -> None:
        self._get[path] = lambda _: json_response(200, model.describe())
        self._get[f"{path}/ready"] = lambda _: _report_model_ready(model)
        self._post[f"{path}/infer"] = infer

    def add_metrics(self, source: MetricsSource) -> None:
        """Have ``source`` add its series to the metrics page from now on."""
        self._sources.append(source)

    def paths(self) -> dict[str, str]:
        """Return the method of every path: what the OpenAPI document has to describe."""
        return dict.fromkeys(self._get, "GET") | dict.fromkeys(self._post, "POST")

    def handle(self, request: Request) -> None:
        """Answer a request, at once or later; never raises."""
        try:
            route = request.route or self._route
            route(request)
        except ApiError as error:
            request.answer(error_response(error.status, error.message))
        except Exception:
            log_exception("request failed", path=request.path.decode("latin-1"))
            request.answer(error_response(500, "internal error: the server's log has the details"))

    def _route(self, request: Request) -> None:
        path = _parse_path(request.path)
        post = self._post.get(path)
        if post is not None and request.method == b"POST":
            request.route = post
            post(request)
            return
        get = self._get.get(path)
        if get is not None and request.method in (b"GET", b"HEAD"):
            request.answer(get(request))
        elif post is not None or get is not None:
            allowed = "POST" if post is not None else "GET, HEAD"
            method = request.method.decode("latin-1")
            request.answer(_not_allowed(f"{method} is not allowed here, only {allowed}", allowed))
        else:
            raise ApiError(404, self._explain_missing(path))

    def _explain_missing(self, path: str) -> str:
        parts = path.split("/")
        inside = parts[4:] if parts[:4] == ["", "v2", "repository", "models"] else None
        if inside is None and parts[:3] == ["", "v2", "models"]:
            inside = parts[3:]
        if not inside:
            return f"there is nothing at {quote(path)}"
        model = next((model for model in self.models if model.name == inside[0]), None)
        if model is None:
            return f'there is no model "{quote(inside[0])}"'
        if len(inside) > 2 and inside[1] == "versions" and inside[2] != model.version:
            return f'model "{model.name}" has no version "{quote(inside[2])}", only "{model.version}"'
        return f"there is nothing at {quote(path)}"

    # -- the server ------------------------------------------------------------------------------------------

    def _index(self, request: Request) -> None:
        only_ready = parse_index_request(request.body)
        request.answer(json_response(200, index_models(self.models, only_ready=only_ready)))

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

    def _render_metrics(self, request: Request) -> Response:
        page = Page(openmetrics=wants_openmetrics(request.headers.get(b"accept", b"")))
        add_state(page, self.models, self.reasons())
        add_work(page, self.models)
        for source in self._sources:
            source(page)
        page.add_process()
        return Response(200, (page.render(),), page.content_type)


def _by_content_type(infer_tensors: Route, infer_picture: Route) -> Route:
    def infer(request: Request) -> None:
        content_type = request.headers.get(CONTENT_TYPE)
        if content_type is not None and is_picture(content_type):
            infer_picture(request)
        else:
            infer_tensors(request)

    return infer


def _refuse_control(request: Request) -> None:
    request.answer(_not_allowed(NO_CONTROL, ""))


def _not_allowed(sentence: str, allowed: str) -> Response:
    return error_response(405, sentence, f"Allow: {allowed}\r\n".encode())


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
    """Return the decoded path of a request's target."""
    path = strip_target(target)
    if "%" in path:
        path = unquote(path)
    return path.rstrip("/") or "/"
