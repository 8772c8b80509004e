"""Read everything that the decision needs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgemodel_operator.adapters.decode import (
    belongs_to,
    decode_claims,
    decode_node,
    decode_pod,
    decode_workload,
)
from edgemodel_operator.adapters.pods import Question
from edgemodel_operator.adapters.registries import SecretMissing, read_credentials
from edgemodel_operator.api.edgemodel_status import Revision, RevisionTarget
from edgemodel_operator.api.names import ROLE_SERVE, assignment_value
from edgemodel_operator.core.chain import needed_variants
from edgemodel_operator.core.garbage import unneeded
from edgemodel_operator.core.golden import MAX_BYTES, InvalidGolden, parse_sample
from edgemodel_operator.core.revision import golden_name
from edgemodel_operator.core.supply import SupplyJob, supply_jobs
from edgemodel_operator.core.world import (
    Answer,
    GoldenSample,
    Model,
    Node,
    Pod,
    Supply,
    SupplyStage,
    Trust,
    Verdict,
    World,
)
from edgemodel_operator.reconcile.ports import Ports
from edgemodel_operator.reconcile.supplies import Supplies

GOLDEN_KEY = "golden.json"
INVALID = "GoldenSampleInvalid"


async def gather(model: Model, ports: Ports, supplies: Supplies) -> World:
    """Read the world of one model."""
    cluster = ports.cluster
    nodes, pods, workloads, copies, classes, golden = await asyncio.gather(
        cluster.list_nodes(),
        cluster.list_pods(model.namespace, model.key),
        cluster.list_children("DaemonSet", model.namespace, model.key),
        cluster.list_children("ConfigMap", model.namespace, model.key),
        cluster.list_classes(),
        _golden(model, ports),
    )
    namesake = await cluster.get_service(model.namespace, model.name)
    variants = needed_variants(model.spec, classes)
    jobs = supply_jobs(model, ports.runtimes, variants)
    supplies.retain(model.namespace, model.name, () if model.deleting else jobs)
    known, verdicts = await _images(model, jobs, ports, supplies)
    decoded_nodes = tuple(decode_node(raw) for raw in nodes)
    decoded_pods = tuple(decode_pod(raw) for raw in pods)
    world = World(
        now=ports.clock(),
        model=model,
        nodes=decoded_nodes,
        pods=decoded_pods,
        answers=await _answers(model, decoded_nodes, decoded_pods, golden, ports),
        workloads=tuple(decode_workload(raw) for raw in workloads),
        golden_copies=tuple(sorted(raw["metadata"]["name"] for raw in copies)),
        classes=classes,
        runtimes=ports.runtimes,
        supplies=known,
        verdicts=verdicts,
        golden=golden,
        name_is_taken=namesake is not None and not belongs_to(namesake, model),
        sweep=ports.sweeper.state(model),
    )
    # Asked for only where something is to go: it reads every model of the cluster.
    return replace(world, claimed=await _claimed(model, ports)) if unneeded(world) else world


async def _claimed(model: Model, ports: Ports) -> frozenset[str]:
    others = (raw for raw in await ports.cluster.list_models() if raw["metadata"]["uid"] != model.uid)
    return frozenset().union(*(decode_claims(raw) for raw in others))


async def _golden(model: Model, ports: Ports) -> GoldenSample:
    golden = model.spec.health.golden
    if golden is None or model.deleting:
        return GoldenSample()
    where = f"ConfigMap {model.namespace}/{golden.config_map.name}"
    data = await ports.cluster.get_config_map(model.namespace, golden.config_map.name)
    if data is None:
        return GoldenSample(problem=f"{where} with the golden sample does not exist: create it")
    text = data.get(GOLDEN_KEY, "")
    if not text or len(text) > MAX_BYTES:
        problem = f"{where} must have a key {GOLDEN_KEY} of at most {MAX_BYTES} bytes"
        return GoldenSample(problem=problem, reason=INVALID)
    try:
        parse_sample(text)
    except InvalidGolden as error:
        return GoldenSample(problem=f"{where}: {error}", reason=INVALID)
    return GoldenSample(text=text)


# --- images ----------------------------------------------------------------------------------------------


async def _images(
    model: Model, jobs: tuple[SupplyJob, ...], ports: Ports, supplies: Supplies
) -> tuple[Mapping[str, Supply], Mapping[str, Verdict]]:
    """Give the state of every image, and the verdict on those that are there.

    An image that the status records under the same build key is only verified. If it turns out to be gone or
    unsigned it is supplied again, which mends what somebody deleted; so is one that was made in this process.
    """
    if model.deleting:
        return {}, {}
    policies = await ports.cluster.list_policies()
    known: dict[str, Supply] = {}
    verdicts: dict[str, Verdict] = {}
    for job in jobs:
        supply = supplies.state(job)
        recorded = _recorded(model, job, supplies.build_key(job))
        if supply.stage is SupplyStage.MISSING and recorded is not None:
            verdict = await _verify(recorded.image, job, policies, ports)
            if verdict.trust is not Trust.UNTRUSTED:
                supply, verdicts[recorded.image] = recorded, verdict
        elif supply.stage is SupplyStage.SIGNED:
            verdicts[supply.image] = await _verify(supply.image, job, policies, ports)
        known[job.variant] = supply
    return known, verdicts


def _recorded(model: Model, job: SupplyJob, build_key: str) -> Supply | None:
    for image in model.status.images:
        same_place = image.image.startswith(f"{job.repository}@")
        if image.variant == job.variant and image.build_key == build_key and same_place:
            return Supply(
                SupplyStage.SIGNED,
                build_key=build_key,
                image=image.image,
                platforms=tuple(image.platforms),
                report=model.status.model,
            )
    return None


async def _verify(image: str, job: SupplyJob, policies: tuple[Any, ...], ports: Ports) -> Verdict:
    try:
        credentials = await read_credentials(ports.cluster, job.namespace, job.pull_secrets)
    except SecretMissing as error:
        return Verdict(Trust.UNKNOWN, error.reason, str(error), needs_person=True)
    return await ports.verifier.verify(image, job.namespace, policies, credentials)


# --- pods under trial ------------------------------------------------------------------------------------


async def _answers(
    model: Model, nodes: tuple[Node, ...], pods: tuple[Pod, ...], golden: GoldenSample, ports: Ports
) -> Mapping[str, Answer]:
    """Ask every pod whose assignment is under trial on its node."""
    revisions = {revision.name: revision for revision in model.status.revisions}
    on_trial = {(node.name, node.next(model.key)) for node in nodes if node.ready and node.next(model.key)}
    questions = []
    for pod in pods:
        revision = revisions.get(pod.revision)
        if revision is None or pod.role != ROLE_SERVE or pod.terminating or not (pod.running and pod.ip):
            continue
        if (pod.node, assignment_value(pod.revision, pod.target)) in on_trial:
            questions.append(_question(model, pod, revision, golden))
    answers = await asyncio.gather(*(ports.pods.ask(question) for question in questions))
    return {question.pod.uid: answer for question, answer in zip(questions, answers, strict=True)}


def _question(model: Model, pod: Pod, revision: Revision, golden: GoldenSample) -> Question:
    target: RevisionTarget | None = next(
        (item for item in revision.targets if item.accelerator == pod.target), None
    )
    # A revision that is older than the user's sample has its own, which its server tests by itself.
    is_current = bool(golden.text) and revision.golden_config_map == golden_name(model.name, golden.text)
    return Question(
        pod=pod,
        port=revision.http_port,
        model=model.name,
        provider=target.provider if target is not None and revision.require_accelerator else "",
        golden=golden.text if is_current else "",
        tolerance=float(revision.golden_tolerance or 0),
    )
