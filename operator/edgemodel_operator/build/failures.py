"""Why a build failed: reason codes, and the sentence, retry advice and step that go with each failure."""

from __future__ import annotations

from enum import StrEnum

from edgemodel_operator.api.base import Schema


class Step(StrEnum):
    """The steps of a build, in order."""

    RESOLVE = "Resolve"
    """Read the runtime image; look for an image that exists under the build key."""
    DOCKERFILE = "Dockerfile"
    """Have the runtime image made from the user's Dockerfile; only where there is one."""
    DOWNLOAD = "Download"
    """Fetch the model file and compare its SHA-256."""
    INSPECT = "Inspect"
    """Tell whether the file is a model of its format."""
    CONVERT = "Convert"
    """Turn the files into the format that is served; only where that is asked."""
    ASSEMBLE = "Assemble"
    """Write the model layer."""
    PUSH = "Push"
    """Bring blobs, platform images and at last the index to the repository."""
    DESCRIBE = "Describe"
    """Attach bills of materials and provenance to what was pushed."""


class Reason(StrEnum):
    """One CamelCase word for each kind of failure."""

    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_DENIED = "SourceDenied"
    SOURCE_SECRET_INVALID = "SourceSecretInvalid"  # noqa: S105 - a reason, not a secret
    SOURCE_TIMEOUT = "SourceTimeout"
    SOURCE_TLS_FAILED = "SourceTlsFailed"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    SOURCE_FORBIDDEN_ADDRESS = "SourceForbiddenAddress"
    SOURCE_TOO_LARGE = "SourceTooLarge"
    SOURCE_DIGEST_MISMATCH = "SourceDigestMismatch"
    SOURCE_INVALID = "SourceInvalid"
    INVALID_MODEL = "InvalidModel"
    OUTPUTS_DIFFER = "OutputsDiffer"
    OPERATORS_NOT_SUPPORTED = "OperatorsNotSupported"
    CONVERTER_MISSING = "ConverterMissing"
    CONVERSION_FAILED = "ConversionFailed"
    RUNTIME_IMAGE_MISSING = "RuntimeImageMissing"
    RUNTIME_IMAGE_DENIED = "RuntimeImageDenied"
    RUNTIME_IMAGE_INVALID = "RuntimeImageInvalid"
    PLATFORM_MISSING = "PlatformMissing"
    REGISTRY_UNAVAILABLE = "RegistryUnavailable"
    REGISTRY_DENIED = "RegistryDenied"
    REGISTRY_REFUSED = "RegistryRefused"
    NO_SPACE = "NoSpace"
    BUILD_TIMEOUT = "BuildTimeout"
    WORKER_DIED = "WorkerDied"
    CONVERTER_NOT_CONFIGURED = "ConverterNotConfigured"
    DOCKERFILE_INVALID = "DockerfileInvalid"
    DOCKERFILE_FAILED = "DockerfileFailed"
    ENGINE_NOT_CONFIGURED = "EngineNotConfigured"
    ENGINE_UNSUITABLE = "EngineUnsuitable"
    ENGINE_UNAVAILABLE = "EngineUnavailable"
    JOB_IMAGE_NOT_CONFIGURED = "JobImageNotConfigured"
    JOB_IMAGE_UNAVAILABLE = "JobImageUnavailable"
    JOB_REFUSED = "JobRefused"
    JOB_QUOTA_EXCEEDED = "JobQuotaExceeded"
    JOB_UNSCHEDULABLE = "JobUnschedulable"
    JOB_NOT_STARTED = "JobNotStarted"
    JOB_INTERRUPTED = "JobInterrupted"
    JOB_RESULT_INVALID = "JobResultInvalid"
    CLAIM_NOT_FOUND = "ClaimNotFound"
    CLAIM_NOT_BOUND = "ClaimNotBound"
    VOLUME_NOT_MOUNTED = "VolumeNotMounted"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a secret
    OUT_OF_MEMORY = "OutOfMemory"
    INVALID_REQUEST = "InvalidRequest"
    INTERNAL_ERROR = "InternalError"


FINAL_REASONS = frozenset(
    {
        Reason.SOURCE_SECRET_INVALID,
        Reason.SOURCE_FORBIDDEN_ADDRESS,
        Reason.SOURCE_TOO_LARGE,
        Reason.SOURCE_DIGEST_MISMATCH,
        Reason.SOURCE_INVALID,
        Reason.INVALID_MODEL,
        Reason.OUTPUTS_DIFFER,
        Reason.OPERATORS_NOT_SUPPORTED,
        Reason.CONVERTER_MISSING,
        Reason.CONVERSION_FAILED,
        Reason.RUNTIME_IMAGE_DENIED,
        Reason.RUNTIME_IMAGE_INVALID,
        Reason.PLATFORM_MISSING,
        Reason.REGISTRY_DENIED,
        Reason.CONVERTER_NOT_CONFIGURED,
        Reason.DOCKERFILE_INVALID,
        Reason.DOCKERFILE_FAILED,
        Reason.ENGINE_NOT_CONFIGURED,
        Reason.ENGINE_UNSUITABLE,
        Reason.JOB_IMAGE_NOT_CONFIGURED,
        Reason.JOB_REFUSED,
        Reason.JOB_RESULT_INVALID,
        Reason.CLAIM_NOT_FOUND,
        Reason.SECRET_NOT_FOUND,
        Reason.OUT_OF_MEMORY,
        Reason.INVALID_REQUEST,
    }
)
"""Reasons that no waiting can cure: a person must change the spec, a Secret or the configuration."""


class BuildFailure(Schema):
    """A failed build, as the operator shows it."""

    reason: Reason
    """One CamelCase word for programs."""
    message: str
    """One sentence for people. Never holds credentials or the query of a URL."""
    step: Step | None = None
    """The step in which it happened; None when it was none of them."""
    retry_after: float | None = None
    """Seconds that a server asked us to wait, if one did."""

    @property
    def retryable(self) -> bool:
        """Whether the same build may succeed later without anybody changing anything."""
        return self.reason not in FINAL_REASONS


class BuildError(Exception):
    """A build failed; `failure` says why."""

    def __init__(self, failure: BuildFailure) -> None:
        super().__init__(f"{failure.reason}: {failure.message}")
        self.failure = failure


def fail(reason: Reason, message: str, *, retry_after: float | None = None) -> BuildError:
    """Make the error to raise; the step is filled in by the step that it passes through."""
    return BuildError(BuildFailure(reason=reason, message=message, retry_after=retry_after))
