"""Why a Job does not get on, or ended without an answer: from what the cluster shows to a sentence. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from edgemodel_operator.adapters.jobs import JobSeen, Raw
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason, Step
from edgemodel_operator.build.jobs.plan import JobPlan
from edgemodel_operator.settings import BuildSettings

PATIENCE_SECONDS = 10.0
"""What is usual for a moment (no node has room, a claim is not bound yet) is no trouble before this."""

_PULL_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_CREATE_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_MOUNT_EVENTS = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
_LAST_CONDITIONS = frozenset({"Complete", "SuccessCriteriaMet", "Failed", "FailureTarget"})

_CLAIM_MISSING = re.compile(r'persistentvolumeclaim "([^"]+)" (?:not found|is being deleted)', re.IGNORECASE)
_CLAIM_UNBOUND = re.compile(r"unbound immediate PersistentVolumeClaims|non-existent persistentvolume", re.I)
_SECRET_MISSING = re.compile(r'secret "([^"]+)" not found', re.IGNORECASE)
_CONFIG_MAP_MISSING = re.compile(r'configmap "([^"]+)" not found', re.IGNORECASE)
_JOBS_FORBIDDEN = re.compile(r'cannot \w+ resource "(?:jobs|pods/log|events)"')
_CALL = re.compile(r"^/\S+: \d{3} ")
"""How an answer of the API server begins in a KubeError."""
_QUOTA = re.compile(r"exceeded quota|failed quota")


def is_running(seen: JobSeen) -> bool:
    """Tell whether the container was started and has not ended."""
    return _phase(seen) == "Running"


def has_ended(seen: JobSeen) -> bool:
    """Tell whether there is nothing more to wait for."""
    return _phase(seen) in {"Succeeded", "Failed"} or bool(_last_condition(seen.job))


def termination_message(seen: JobSeen) -> str:
    """Give what the container left as its last word."""
    return str(_terminated(seen).get("message") or "")


def why_refused(plan: JobPlan, message: str) -> BuildError:
    """Say why the API server does not take the Job, or the Job controller gets no pod."""
    message = _CALL.sub("", message)
    if _JOBS_FORBIDDEN.search(message):
        return _fail(
            Reason.JOB_REFUSED,
            f"The operator may not run Jobs in namespace {plan.namespace}: name it in `modelNamespaces` of "
            "the operator's chart.",
        )
    if _QUOTA.search(message):
        return _fail(
            Reason.JOB_QUOTA_EXCEEDED,
            f"{plan.where} does not fit into the quota of its namespace: {_short(message)}",
        )
    return _fail(Reason.JOB_REFUSED, f"The cluster refuses {plan.where}: {_short(message)}")


def why_not_started(plan: JobPlan, seen: JobSeen, waited: float) -> BuildError | None:
    """Say what keeps the pod from starting, if anything does; `waited` is in seconds."""
    if seen.pod is None:
        event = seen.events[-1] if seen.events else {}
        refused = event.get("reason") == "FailedCreate"
        return why_refused(plan, str(event.get("message", ""))) if refused else None
    checks: tuple[Callable[[JobPlan, JobSeen, float], BuildError | None], ...] = (
        _why_not_scheduled,
        _why_not_created,
        _why_not_mounted,
    )
    return next((found for check in checks if (found := check(plan, seen, waited)) is not None), None)


def why_ended(plan: JobPlan, seen: JobSeen, settings: BuildSettings) -> BuildError:
    """Say why there is no answer though the Job has ended."""
    if _last_condition(seen.job).get("reason") == "DeadlineExceeded":
        return _fail(
            Reason.BUILD_TIMEOUT,
            f"{plan.where} was not complete after {settings.timeout_seconds} seconds "
            "(`builds.timeoutSeconds`), the time until it was started included.",
        )
    if seen.pod is None:
        return _fail(
            Reason.JOB_INTERRUPTED,
            f"The pod of {plan.where} was deleted before it answered, as when its node is drained; the build "
            "starts again.",
        )
    terminated = _terminated(seen)
    if terminated.get("reason") == "OOMKilled":
        limit = settings.resources.limits.get("memory", "its node has")
        return _fail(
            Reason.OUT_OF_MEMORY,
            f"The build needs more memory than {limit}: raise `builds.resources.limits.memory` of the "
            "operator's chart.",
        )
    return _why_pod_ended(plan, seen.pod, terminated)


def _why_not_scheduled(plan: JobPlan, seen: JobSeen, waited: float) -> BuildError | None:
    conditions = (seen.pod or {}).get("status", {}).get("conditions") or ()
    refusal: Raw = next((item for item in conditions if item.get("type") == "PodScheduled"), {})
    if refusal.get("status") != "False":
        return None
    message = str(refusal.get("message", ""))
    missing = _CLAIM_MISSING.search(message)
    if missing:
        return _fail_source(
            Reason.CLAIM_NOT_FOUND,
            f"PersistentVolumeClaim {plan.namespace}/{missing[1]} does not exist: create it, or name another "
            "in `model.source.pvc.claimName`.",
        )
    if waited < PATIENCE_SECONDS:
        return None
    if _CLAIM_UNBOUND.search(message):
        return _fail_source(
            Reason.CLAIM_NOT_BOUND,
            f"PersistentVolumeClaim {', '.join(plan.claims)} in namespace {plan.namespace} is not bound to a "
            "volume: see `kubectl describe pvc`.",
        )
    return _fail(Reason.JOB_UNSCHEDULABLE, f"No node takes {plan.where}: {_short(message)}")


def _why_not_created(plan: JobPlan, seen: JobSeen, waited: float) -> BuildError | None:
    waiting = _container(seen).get("state", {}).get("waiting") or {}
    reason, message = str(waiting.get("reason", "")), _short(str(waiting.get("message", "")))
    if reason in _PULL_REASONS:
        return _fail(
            Reason.JOB_IMAGE_UNAVAILABLE,
            f"The node cannot pull {plan.image} for {plan.where}: {message or reason}",
        )
    if reason in _CREATE_REASONS:
        return _fail(Reason.JOB_NOT_STARTED, f"The node cannot start {plan.where}: {message or reason}")
    return None


def _why_not_mounted(plan: JobPlan, seen: JobSeen, waited: float) -> BuildError | None:
    """Only the newest event counts: what was mended stays among the events for an hour."""
    event = seen.events[-1] if seen.events else {}
    if event.get("reason") not in _MOUNT_EVENTS:
        return None
    message = str(event.get("message", ""))
    secret, entries = _SECRET_MISSING.search(message), _CONFIG_MAP_MISSING.search(message)
    if secret:
        return _fail_source(
            Reason.SECRET_NOT_FOUND, f"Secret {plan.namespace}/{secret[1]} does not exist: create it."
        )
    if entries:
        return _fail_source(
            Reason.SOURCE_NOT_FOUND, f"ConfigMap {plan.namespace}/{entries[1]} does not exist: create it."
        )
    if waited < PATIENCE_SECONDS:
        return None
    return _fail_source(
        Reason.VOLUME_NOT_MOUNTED, f"A volume of {plan.where} cannot be mounted: {_short(message)}"
    )


def _why_pod_ended(plan: JobPlan, pod: Raw, terminated: Raw) -> BuildError:
    status = pod.get("status") or {}
    message = _short(str(status.get("message") or ""))
    if status.get("reason") == "Evicted" and re.search("emptydir|ephemeral", message, re.IGNORECASE):
        return _fail(
            Reason.NO_SPACE,
            f"The build needs more disk than it may have: {message} Raise `builds.workSizeLimit` of the "
            "operator's chart.",
        )
    if status.get("reason") or not terminated:
        what = (
            ": ".join(filter(None, (str(status.get("reason") or ""), message))) or "it was ended from outside"
        )
        return _fail(Reason.JOB_INTERRUPTED, f"{plan.where} was interrupted: {what}; the build starts again.")
    if terminated.get("reason") in {"StartError", "ContainerCannotRun"}:
        what = _short(str(terminated.get("message", "")))
        return _fail(Reason.JOB_NOT_STARTED, f"The container of {plan.where} could not be started: {what}")
    return _fail(
        Reason.WORKER_DIED,
        f"The container of {plan.where} ended with status {terminated.get('exitCode')} before it answered; "
        "the build starts again.",
    )


def _fail(reason: Reason, message: str) -> BuildError:
    """Fail before anything of the source is known."""
    return BuildError(BuildFailure(reason=reason, message=message, step=Step.RESOLVE))


def _fail_source(reason: Reason, message: str) -> BuildError:
    return BuildError(BuildFailure(reason=reason, message=message, step=Step.DOWNLOAD))


def _phase(seen: JobSeen) -> str:
    return str(((seen.pod or {}).get("status") or {}).get("phase", ""))


def _container(seen: JobSeen) -> dict[str, Any]:
    containers = ((seen.pod or {}).get("status") or {}).get("containerStatuses") or ()
    return dict(containers[0]) if containers else {}


def _terminated(seen: JobSeen) -> dict[str, Any]:
    return dict(_container(seen).get("state", {}).get("terminated") or {})


def _last_condition(job: Raw) -> Raw:
    conditions = (job.get("status") or {}).get("conditions") or ()
    true = (item for item in conditions if item.get("status") == "True")
    return next((item for item in true if item.get("type") in _LAST_CONDITIONS), {})


def _short(text: str, limit: int = 500) -> str:
    """Give a message of others as one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
