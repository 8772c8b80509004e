"""What a run measures, in the order of the bars: every round takes each contender with the same model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from bench.machine import BenchError
from buildbench.dockerfiles import DOCKERFILES, Buildah
from buildbench.in_operator import build_all, find_again
from buildbench.materials import Models, make_small
from buildbench.meter import Cost
from buildbench.ours import Ours
from buildbench.report import CONTENDERS
from buildbench.runtime_images import (
    Published,
    download_wheels,
    publish_cold,
    publish_runtime,
    unpack_runtime,
)
from buildbench.samples import Samples
from buildbench.wire import Counter
from cluster.kernel import arm64_programs
from cluster.progress import Progress

_NAME = "nsfw"
_SEARCHES = 20


@dataclass(frozen=True)
class Choice:
    """What the person who started the run wants measured."""

    scenarios: Collection[str]
    contenders: Collection[str]
    rounds: int
    models_at_once: int


@dataclass(frozen=True)
class Site:
    """Where everything happens: two registries, a file server with its folder, room for temporary files.

    Everybody pushes to `registry`; `elsewhere` has the runtime image that a first build takes over from it.
    """

    registry: Counter
    elsewhere: Counter
    files_url: str
    models: Models
    folder: Path
    progress: Progress


class Agenda:
    """One run."""

    def __init__(self, site: Site, choice: Choice, samples: Samples) -> None:
        self._site, self._choice, self._samples = site, choice, samples
        self._ends = ExitStack()

    def run(self) -> None:
        """Measure everything that was chosen. Raises BenchError when our own build cannot be measured."""
        steps: Mapping[str, Callable[[], None]] = {
            "change": self._change,
            "head": self._head,
            "cold": self._cold,
            "reuse": self._reuse,
            "big": self._big,
            "loop": self._loop,
        }
        try:
            for name, measure in steps.items():
                if name in self._choice.scenarios:
                    measure()
        finally:
            self._ends.close()

    @cached_property
    def _published(self) -> Published:
        with self._site.progress.step("publish the runtime image"):
            return publish_runtime(f"{self._site.registry.host}/edgemodel")

    @cached_property
    def _ours(self) -> Ours:
        return Ours(self._site.registry.host, self._published.runtime, self._site.files_url)

    @cached_property
    def _buildah(self) -> Buildah:
        buildah = Buildah(self._site.folder / "buildah", self._site.registry.host)
        self._ends.callback(buildah.end)
        with self._site.progress.step("give buildah its images and files"):
            buildah.prepare()
            buildah.pull(self._published.base_tag)
            buildah.pull(self._published.runtime_tag)
            unpack_runtime(buildah.context)
            if "run" in self._choice.contenders:
                self._ends.enter_context(arm64_programs())
                download_wheels(buildah.context)
        return buildah

    def _change(self) -> None:
        self._ours.build(self._site.models.original, _NAME, "ours/change")
        for number in range(self._choice.rounds):
            model = self._site.models.retrained(number)
            self._measure("change", "ours", self._our_build(model, "ours/change"))
            for name in ("graft", "copy"):
                self._measure("change", name, self._dockerfile(name, model, f"change-{number}"))

    def _head(self) -> None:
        self._ours.build(self._site.models.original, _NAME, "ours/head")
        for number in range(self._choice.rounds):
            model = self._site.models.with_new_head(number)
            self._measure("head", "ours", self._our_build(model, "ours/head"))
            self._measure("head", "graft", self._dockerfile("graft", model, f"head-{number}"))

    def _cold(self) -> None:
        model, _ = self._site.models.original, self._published_elsewhere
        for number in range(max(1, self._choice.rounds // 3)):
            self._measure("cold", "assembled", partial(self._assemble, number))
            self._measure("cold", "ours", partial(self._build_first, number))
            for name in ("copy", "run"):
                self._measure("cold", name, self._dockerfile(name, model, f"cold-{number}"))

    @cached_property
    def _published_elsewhere(self) -> Published:
        return publish_runtime(f"{self._site.elsewhere.host}/edgemodel")

    def _build_first(self, number: int) -> Cost:
        """Build for a repository that has nothing, on a runtime image of another registry."""
        elsewhere = Ours(self._site.registry.host, self._published_elsewhere.runtime, self._site.files_url)
        return elsewhere.build(self._site.models.original, _NAME, f"first-{number}/ours")[0]

    def _assemble(self, number: int) -> Cost:
        """Build the runtime image as well."""
        cache = self._site.folder / f"cache-{number}"
        cache.mkdir()
        runtime, published = publish_cold(f"{self._site.registry.host}/cold-{number}", cache)
        ours = Ours(self._site.registry.host, published.runtime, self._site.files_url)
        model, _ = ours.build(self._site.models.original, _NAME, f"cold-{number}/ours")
        return Cost(
            runtime.wall_s + model.wall_s,
            runtime.cpu_s + model.cpu_s,
            max(runtime.largest_mb, model.largest_mb),
            max(runtime.sum_mb, model.sum_mb),
        )

    def _reuse(self) -> None:
        with self._site.progress.step("find an image by its key"):
            _, built = self._ours.build(self._site.models.original, _NAME, "ours/reuse")
            host = self._site.registry.host
            for seconds in asyncio.run(find_again(host, built, _SEARCHES)):
                self._samples.add("reuse.seconds", seconds)

    def _big(self) -> None:
        with self._site.progress.step("make the model of 1 GiB"):
            model = self._site.models.big()
        self._measure("big", "ours", self._our_build(model, "ours/big"))

    def _loop(self) -> None:
        model = make_small(self._site.models.folder / "small.onnx", 1)
        count = self._choice.models_at_once
        jobs = [self._ours.job(model, f"m{number}", f"ours/m{number}") for number in range(count)]
        with self._site.progress.step(f"build {count} models at once"):
            figures = asyncio.run(build_all(self._site.registry.host, self._ours.builder, jobs))
        for name, value in figures.items():
            self._samples.add(f"loop.{name}", value)

    def _our_build(self, model: Path, repository: str) -> Callable[[], Cost]:
        return lambda: self._ours.build(model, _NAME, repository)[0]

    def _dockerfile(self, name: str, model: Path, tag: str) -> Callable[[], Cost]:
        base = self._published.runtime_tag if name == "graft" else self._published.base_tag
        return lambda: self._buildah.build(name, base, model, tag)

    def _measure(self, scenario: str, contender: str, build: Callable[[], Cost]) -> None:
        """Run one build of one contender; what we cannot do ends the run, what others cannot is noted."""
        if contender not in self._choice.contenders:
            return
        if contender in DOCKERFILES:
            _ = self._buildah  # made before the counter is looked at
        before = self._site.registry.sent
        with self._site.progress.step(f"{scenario}: {CONTENDERS[contender]}"):
            try:
                cost = build()
            except BenchError as error:
                if contender not in DOCKERFILES:
                    raise
                self._samples.notes.append(f"{CONTENDERS[contender]}: {error}")
                return
        self._samples.add_cost(scenario, contender, cost, self._site.registry.sent - before)
