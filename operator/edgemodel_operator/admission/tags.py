"""From a tag to the digest that it means now, and the patch that writes it into a pod.

A tag is looked up once. What it means goes into the pod, where everybody sees the same: the validating
webhook verifies that digest, and the node pulls it. Nothing else is handed on, so a registry that answers the
second question differently gains nothing (CVE-2022-47633).

The tag stays beside the digest, `name:1.4@sha256:…`: nodes ignore it, people read it, and no annotation has
to be kept in step with it, or could be forged.

Only pods are patched, never their templates: those belong to whoever wrote them, and a tool that compares
them with a repository would put the tag back for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.policy_verifier import CannotVerify, ImageNotFound
from edgemodel_operator.adapters.registry_access import RegistryAccess
from edgemodel_operator.admission.metrics import AdmissionMetrics, Resolution
from edgemodel_operator.admission.policy_source import PolicySource
from edgemodel_operator.admission.review import ImageUse, Review
from edgemodel_operator.core.trust import matching_policies
from edgemodel_operator.oci.errors import NotFound, RegistryError
from edgemodel_operator.oci.reference import InvalidReference, Reference, parse_reference

BUDGET_SECONDS = 4.0
"""For all tags of a pod: the validating webhook comes after us, within the patience of the same client."""
MAX_TAGS = 256


class TagResolver(Protocol):
    """What looks tags up."""

    async def digest_of(self, image: Reference) -> str:
        """Give the digest that the tag means now. Raises CannotVerify."""
        ...


class RegistryTags:
    """Looks tags up in their registries."""

    def __init__(self, registries: RegistryAccess) -> None:
        self._registries = registries

    async def digest_of(self, image: Reference) -> str:
        """Give the digest that the tag means now: the hash of the manifest that was read."""
        try:
            client = await self._registries.client()
            return (await client.get_manifest(image)).descriptor.digest
        except NotFound as error:
            raise ImageNotFound(f"{image} is not in its registry: {str(error).rstrip('.')}") from error
        except (RegistryError, KubeError) as error:
            raise CannotVerify(str(error).rstrip(".")) from error


@dataclass(frozen=True)
class Mutation:
    """The answer: a JSON patch, and warnings about tags that stay."""

    patch: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()


class TagMutator:
    """Writes digests into pods. It opens nothing: what it leaves alone is judged as it is."""

    def __init__(
        self,
        policies: PolicySource,
        tags: TagResolver,
        metrics: AdmissionMetrics,
        *,
        budget_seconds: float = BUDGET_SECONDS,
    ) -> None:
        self._policies = policies
        self._tags = tags
        self._metrics = metrics
        self._budget_seconds = budget_seconds

    async def mutate(self, review: Review) -> Mutation:
        """Give the patch for a pod. Asked again about the patched pod, it gives none.

        A tag that stood in the pod before stays: to write a digest into a pod that runs would restart it.
        """
        if not review.is_pod or review.mirror:
            return Mutation()
        news = [use for use in review.starting if use not in review.before]
        tagged: dict[str, Reference] = {}
        for use in news:
            reference = self._to_resolve(use.image, review.namespace)
            if reference is not None and len(tagged) < MAX_TAGS:
                tagged[use.image] = reference
        answers = await asyncio.gather(*(self._resolve(reference) for reference in tagged.values()))
        digests = dict(zip(tagged, answers, strict=True))
        return Mutation(
            patch=tuple(_patches(news, digests)),
            warnings=tuple(
                f"the tag of {image} could not be looked up: {answer}"
                for image, answer in digests.items()
                if isinstance(answer, CannotVerify)
            ),
        )

    def _to_resolve(self, image: str, namespace: str) -> Reference | None:
        """Give what is to be looked up: a tag in a registry that some policy names.

        Of the others none would be admitted, and whoever may create pods must not make us call any host.
        """
        try:
            reference = parse_reference(image)
        except InvalidReference:
            return None
        if reference.digest is not None:
            return None
        return reference if matching_policies(self._policies.policies, reference.name, namespace) else None

    async def _resolve(self, image: Reference) -> str | CannotVerify:
        try:
            async with asyncio.timeout(self._budget_seconds):
                digest = await self._tags.digest_of(image)
        except TimeoutError:
            self._metrics.resolutions.labels(Resolution.LEFT).inc()
            return CannotVerify(f"the registry {image.registry} did not answer in time")
        except CannotVerify as error:
            self._metrics.resolutions.labels(Resolution.LEFT).inc()
            return error
        self._metrics.resolutions.labels(Resolution.RESOLVED).inc()
        return digest


def _patches(uses: Sequence[ImageUse], digests: dict[str, str | CannotVerify]) -> list[dict[str, Any]]:
    return [
        {"op": "replace", "path": use.pointer, "value": f"{use.image}@{digest}"}
        for use in uses
        if isinstance(digest := digests.get(use.image), str)
    ]
