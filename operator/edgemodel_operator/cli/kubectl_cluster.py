"""The cluster of a person's kubeconfig, and what the plugin reads there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import reduce, wraps
from typing import Any

import click

from edgemodel_operator.adapters.authorities import AuthorityStore
from edgemodel_operator.adapters.kube import KubeApi, KubeError, NoCluster, connect, current_namespace
from edgemodel_operator.adapters.policy_status import EXCEPTIONS, POLICIES
from edgemodel_operator.api.names import GROUP, VERSION
from edgemodel_operator.cli.outcome import Exit, end, told
from edgemodel_operator.core.exemption import Exemption, parse_exemption
from edgemodel_operator.core.trust import AnyPolicy, parse_policy

Raw = Mapping[str, Any]
_MODELS = f"/apis/{GROUP}/{VERSION}"


_OPTIONS = (
    click.option("--namespace", "-n", default="", help="Namespace of the EdgeModel."),
    click.option("--kubeconfig", metavar="FILE", help="Instead of the one in KUBECONFIG."),
    click.option("--context", default="", help="Context of the kubeconfig."),
    click.option(
        "--system-namespace", default="edgemodel-system", show_default=True, help="Where the operator is."
    ),
    click.option(
        "--output", "-o", type=click.Choice(["text", "json"]), default="text", help="For people or programs."
    ),
)


@dataclass(frozen=True)
class Place:
    """Which cluster, and where in it; `system` is the namespace of the operator."""

    namespace: str
    kubeconfig: str | None
    context: str
    system: str


def place_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options by which kubectl chooses a place, and the place as `place`.

    Without a namespace it is that of the context.
    """

    @wraps(command)
    def called(
        *, namespace: str, kubeconfig: str | None, context: str, system_namespace: str, **given: Any
    ) -> None:
        chosen = namespace or current_namespace(kubeconfig, context)
        command(place=Place(chosen, kubeconfig, context, system_namespace), **given)

    return reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), called)


@contextmanager
def cluster_told(*, as_json: bool) -> Iterator[None]:
    """Run a command's work; what goes wrong, also with the cluster, is said and ends the program."""
    with told(as_json=as_json):
        try:
            yield
        except NoCluster as error:
            end(Exit.WRONG_INPUT, str(error), "NoCluster", as_json=as_json)
        except KubeError as error:
            code = Exit.FAILED if 400 <= error.status < 500 else Exit.TRY_AGAIN
            end(code, str(error), "KubeError", as_json=as_json)
        except NotThere as error:
            end(Exit.FAILED, str(error), "NotFound", as_json=as_json)


class NotThere(Exception):  # noqa: N818 - reads as the fact it states
    """What is asked about does not exist in the cluster; the message says what to look at."""


class ClusterView:
    """Reads of one cluster; every method raises KubeError."""

    def __init__(self, api: KubeApi, place: Place) -> None:
        self.place = place
        self.authorities = AuthorityStore(api, place.system, time.monotonic)
        self._api = api

    async def model(self, name: str) -> Raw:
        """Read an EdgeModel of the namespace. Raises NotThere."""
        namespace = self.place.namespace
        found = await self._api.get(f"{_MODELS}/namespaces/{namespace}/edgemodels/{name}")
        if found is None:
            raise NotThere(f"there is no EdgeModel {name} in namespace {namespace}")
        return found

    async def models(self) -> tuple[Raw, ...]:
        """Read all EdgeModels."""
        return (await self._api.list(f"{_MODELS}/edgemodels")).items

    async def policies(self) -> tuple[AnyPolicy, ...]:
        """Read all TrustPolicies."""
        return tuple(parse_policy(raw) for raw in (await self._api.list(POLICIES)).items)

    async def exemptions(self) -> tuple[Exemption, ...]:
        """Read the TrustExceptions that count."""
        path = EXCEPTIONS.format(namespace=self.place.system)
        found = [parse_exemption(raw, self.place.system) for raw in (await self._api.list(path)).items]
        return tuple(one for one in found if one is not None)

    async def pods_with(self, digests: Collection[str]) -> tuple[Raw, ...]:
        """Read the pods that name one of the digests, or whose nodes do."""
        found: list[Raw] = []
        async with aclosing(self._api.pages("/api/v1/pods")) as pages:
            async for page in pages:
                found += [pod for pod in page.items if _names_one(pod, digests)]
        return tuple(found)

    async def events_about(self, digests: Collection[str], components: Sequence[str]) -> tuple[Raw, ...]:
        """Read the events of our programs whose text holds one of the digests, the oldest first."""
        found: list[Raw] = []
        async with aclosing(self._api.pages("/api/v1/events")) as pages:
            async for page in pages:
                found += [
                    event
                    for event in page.items
                    if event.get("reportingComponent") in components
                    and any(digest in (event.get("message") or "") for digest in digests)
                ]
        return tuple(sorted(found, key=lambda event: str(event.get("lastTimestamp") or "")))


@asynccontextmanager
async def open_view(place: Place) -> AsyncIterator[ClusterView]:
    """Connect to the cluster of a place. Raises NoCluster."""
    async with connect(place.kubeconfig, place.context) as api:
        yield ClusterView(api, place)


def _names_one(pod: Raw, digests: Collection[str]) -> bool:
    text = str([pod.get("spec"), pod.get("status")])
    return any(digest in text for digest in digests)
