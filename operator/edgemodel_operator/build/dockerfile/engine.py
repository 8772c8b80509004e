"""One Docker Engine, spoken to through its API: load, build, save, and leave nothing behind.

Everything that a build makes on an engine carries its owner and its deadline: images and containers as
labels, the loaded runtime image in its name. What a killed build left is removed by the next one of the same
owner, or by any other one after the deadline. All functions and methods block and raise BuildError.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError, NotFound
from docker.types import CancellableStream

from edgemodel_operator.build.dockerfile.adopted import LABEL_DEADLINE, LABEL_OWNER
from edgemodel_operator.build.dockerfile.build_log import BuildLog
from edgemodel_operator.build.dockerfile.context import LABELLED
from edgemodel_operator.build.dockerfile.engine_connection import TROUBLES, in_words
from edgemodel_operator.build.dockerfile.instructions import Instruction
from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.oci.descriptor import Platform
from edgemodel_operator.settings import DockerSettings, NetworkMode

BASE_HOST = "runtime.edgemodel.invalid"
"""The registry in the names of loaded runtime images: one that cannot exist (RFC 2606), so that no engine
ever asks a registry for them."""

GRACE_SECONDS = 3600
"""How long after its time a build is given up by others: clocks differ."""

_PAUSE_SECONDS = 0.2
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_COPY_BYTES = 1024 * 1024
_STEP = re.compile(r"^Step (\d+)/\d+ : ", re.MULTILINE)
_MADE = re.compile(r"^ ---> ([0-9a-f]{12,64})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Ownership:
    """Whose a build is, and when it is over in any case (seconds since the epoch)."""

    owner: str
    """Lower-case letters and digits; equal for equal builds: the next one finds what this one left."""
    deadline: int

    @classmethod
    def from_now(cls, owner: str, seconds: float) -> Ownership:
        """Give the ownership of a build that begins now and takes so long at most."""
        return cls(owner, int(time.time() + seconds + GRACE_SECONDS))

    @property
    def labels(self) -> dict[str, str]:
        """The labels of what the build makes."""
        return {LABEL_OWNER: self.owner, LABEL_DEADLINE: str(self.deadline)}

    @property
    def base_tag(self) -> str:
        """The name of the runtime image on the engine."""
        return f"{BASE_HOST}/{self.owner}:{self.deadline}"

    def may_remove(self, owner: str, deadline: str) -> bool:
        """Tell whether something is ours, or nobody's any more."""
        return owner == self.owner or (deadline.isdigit() and int(deadline) < time.time())


@dataclass(frozen=True)
class EngineBuild:
    """What an engine is to build."""

    context: Path
    """The tar that `write_context` wrote."""
    arguments: Mapping[str, str]
    steps: Sequence[Instruction]
    """The instruction behind each step."""
    log: BuildLog


class Engine:
    """A connection to the engine that builds for one platform."""

    def __init__(
        self, client: docker.DockerClient, platform: Platform, settings: DockerSettings, url: str
    ) -> None:
        self._client = client
        self._platform = platform
        self._settings = settings
        self._url = url
        self._answer: requests.Response | None = None
        self._made: set[str] = set()
        """What this build made or stands on, by id: a Dockerfile may say something else in its labels."""
        client.api.hooks["response"].append(self._keep_answer)

    def check(self) -> None:
        """Refuse an engine whose machine has another architecture, unless emulation is allowed."""
        with self._speaking():
            machine = str(self._client.info().get("Architecture"))
        native = _ARCHITECTURES.get(machine, machine)
        if native != self._platform.architecture and not self._settings.emulation:
            raise fail(
                Reason.ENGINE_UNSUITABLE,
                f"The Docker Engine for {self._platform} at {self._url} runs on {native}: name one of that "
                "architecture in `builds.docker.engines`, or allow `builds.docker.emulation`.",
            )

    def load_base(self, archive: Path) -> None:
        """Load a runtime image under the name that its archive gives it."""
        with self._speaking(), archive.open("rb") as content:
            self._client.images.load(content)

    def build(self, build: EngineBuild) -> str:
        """Build, and give the id of the image. Raises BuildError(DockerfileFailed) that names the line."""
        with self._speaking(), build.context.open("rb") as context:
            try:
                return self._follow(self._start(build, context), build)
            except APIError as error:
                if not error.is_client_error():
                    raise
                raise self._failed(build, str(error.explanation), 0) from error

    def save(self, image: str, destination: Path) -> None:
        """Write the image to a file, as `docker save` does; bounded by `maxImageBytes`."""
        left = self._settings.max_image_bytes
        with self._speaking(), destination.open("wb") as out:
            for chunk in self._client.api.get_image(image, _COPY_BYTES):
                left -= len(chunk)
                if left < 0:
                    raise fail(
                        Reason.DOCKERFILE_INVALID,
                        f"The Dockerfile's image for {self._platform} has more than "
                        f"{self._settings.max_image_bytes} bytes: make it smaller, or raise "
                        "`builds.docker.maxImageBytes`.",
                    )
                out.write(chunk)

    def stop(self, ownership: Ownership) -> None:
        """End a running `build` from another thread; it raises then."""
        if self._answer is not None:
            with suppress(*TROUBLES, AttributeError):  # it may have come to its end meanwhile
                CancellableStream(iter(()), self._answer).close()
        with suppress(BuildError):
            self._remove_containers(ownership)

    def remove_leftovers(self, ownership: Ownership, *, patience: float = 0) -> None:
        """Remove what this build made, and what builds left that are long over.

        What an engine still holds on to is tried again, for `patience` seconds.
        """
        ends = time.monotonic() + patience
        while not self._remove_once(ownership) and time.monotonic() < ends:
            time.sleep(_PAUSE_SECONDS)

    def _remove_once(self, ownership: Ownership) -> bool:
        self._remove_containers(ownership)
        with self._speaking():
            images = self._client.api.images(all=True, filters={"label": [LABEL_OWNER]})
            left = [image["Id"] for image in images if _is_left(image, ownership)]
            if not self._remove_images([*left, *filter(self._has_no_name, self._made)]):
                return False  # a runtime image that lost its name while it is in use could not be found again
            for image in self._client.api.images(filters={"reference": f"{BASE_HOST}/*:*"}):
                for tag in image.get("RepoTags") or ():
                    owner, _, deadline = tag.removeprefix(f"{BASE_HOST}/").partition(":")
                    if tag.startswith(BASE_HOST) and ownership.may_remove(owner, deadline):
                        self._try_to_remove(tag)
        return True

    def _start(self, build: EngineBuild, context: Any) -> Iterator[Mapping[str, Any]]:
        limit = self._settings.memory_bytes
        answers: Iterator[Mapping[str, Any]] = self._client.api.build(
            fileobj=context,
            custom_context=True,
            dockerfile=LABELLED,
            buildargs=dict(build.arguments),
            nocache=True,
            rm=True,
            forcerm=True,
            decode=True,
            container_limits={"memory": limit, "memswap": limit},
            network_mode="none" if self._settings.network is NetworkMode.NONE else "default",
            platform=str(self._platform),
        )
        return answers

    def _follow(self, answers: Iterator[Mapping[str, Any]], build: EngineBuild) -> str:
        image, step = "", 0
        for answer in answers:
            text = str(answer.get("stream") or "")
            if "error" in answer:
                raise self._failed(build, str(answer["error"]), step)
            self._made.update(_MADE.findall(text))
            step = max([step, *(int(number) for number in _STEP.findall(text))])
            build.log.feed(text)
            image = str((answer.get("aux") or {}).get("ID") or image)
        build.log.end_line()
        if not image:
            raise fail(
                Reason.ENGINE_UNAVAILABLE,
                f"The Docker Engine at {self._url} broke off the build; it is tried again.",
            )
        return image

    def _failed(self, build: EngineBuild, error: str, step: int) -> BuildError:
        build.log.end_line()
        where = ""
        if 0 < step <= len(build.steps):
            instruction = build.steps[step - 1]
            shown = build.log.hide(f"{instruction.keyword} {instruction.arguments}")[:200]
            where = f" in line {instruction.first_line} ({shown})"
        last = f" Its last lines: {build.log.last_lines}" if build.log.last_lines else ""
        return fail(
            Reason.DOCKERFILE_FAILED,
            f"The Dockerfile failed for {self._platform}{where}: {build.log.hide(error).strip('. ')}.{last}",
        )

    def _remove_containers(self, ownership: Ownership) -> None:
        with self._speaking():
            listed = self._client.api.containers(all=True, filters={"label": [LABEL_OWNER]})
            for container in listed:
                if _is_left(container, ownership):
                    with suppress(APIError):  # gone already, or going
                        self._client.api.remove_container(container["Id"], v=True, force=True)

    def _remove_images(self, images: Sequence[str]) -> bool:
        """Remove images that stand on each other: as often as that makes one fewer. Tells if all are gone."""
        left = list(images)
        while left:
            still = [image for image in left if not self._try_to_remove(image)]
            if len(still) == len(left):
                return False
            left = still
        return True

    def _has_no_name(self, image: str) -> bool:
        """Tell whether an image is there that nobody gave a name: what a FROM pulled has one."""
        try:
            return not self._client.images.get(image).tags
        except NotFound:
            return False

    def _try_to_remove(self, image: str) -> bool:
        try:
            self._client.api.remove_image(image)
        except APIError as error:
            return error.status_code == 404
        return True

    def _keep_answer(self, answer: requests.Response, **_: Any) -> None:
        self._answer = answer

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        with in_words(self._platform, self._url):
            try:
                yield
            finally:
                if self._answer is not None:
                    self._answer.close()  # it may not have been read to its end


def _is_left(thing: Mapping[str, Any], ownership: Ownership) -> bool:
    labels = thing.get("Labels") or {}
    return ownership.may_remove(str(labels.get(LABEL_OWNER)), str(labels.get(LABEL_DEADLINE)))
