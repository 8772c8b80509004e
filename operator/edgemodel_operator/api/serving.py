"""How clients reach a model, and what its server may use for them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from edgemodel_operator.api.base import Schema, rules

Port = Annotated[int, Field(ge=1024, le=65535)]


class Ports(Schema):
    """The ports of the pods and of the Service."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                # `has`: the rule is held against the default, too, which is {}
                "!has(self.http) || !has(self.grpc) || self.http != self.grpc",
                "http and grpc need a port each and have the same: grpc is 8081 unless you write another",
            ),
        )
    )

    http: Port = 8080
    """The Open Inference Protocol over REST, health and metrics."""
    grpc: Port = 8081
    """The Open Inference Protocol over gRPC, in plain text (h2c)."""

    @model_validator(mode="after")
    def _require_two_ports(self) -> Self:
        if self.http == self.grpc:
            raise ValueError("http and grpc need a port each")
        return self


class BatchingMode(StrEnum):
    """Whether requests that wait at the same time are computed together."""

    AUTO = "Auto"
    DISABLED = "Disabled"


class Batching(Schema):
    """Computing several waiting requests at once. It never changes answers by more than the last digit."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                (
                    "!has(self.mode) || self.mode == 'Auto' || "
                    "(!has(self.maxBatchSize) && !has(self.maxDelayMilliseconds))"
                ),
                "with `mode: Disabled` leave maxBatchSize and maxDelayMilliseconds out",
            ),
        )
    )

    mode: BatchingMode = BatchingMode.AUTO
    """Auto: where the start has measured that it pays. Disabled: each request alone."""
    max_batch_size: Annotated[int, Field(ge=1, le=1024)] | None = None
    """The most rows in one computation. Not given: 32."""
    max_delay_milliseconds: Annotated[int, Field(ge=0, le=1000)] | None = None
    """How long a request may wait for others. Not given: no time at all; what waits anyway is batched."""

    @model_validator(mode="after")
    def _refuse_bounds_of_nothing(self) -> Self:
        bounds = (self.max_batch_size, self.max_delay_milliseconds)
        if self.mode is BatchingMode.DISABLED and bounds != (None, None):
            raise ValueError("with `mode: Disabled` leave maxBatchSize and maxDelayMilliseconds out")
        return self


class Serving(Schema):
    """How clients reach the model, and what its server may use for them."""

    ports: Ports = Ports()
    """The ports of the pods and of the Service."""
    batching: Batching = Batching()
    """Computing several waiting requests at once."""
    idle_unload_seconds: Annotated[int, Field(ge=1, le=604800)] | None = None
    """After how long (seconds) without a request the memory of the model is given back; the next request
    loads it again. Not given: never."""
    max_cpu_percent: Annotated[int, Field(ge=1, le=100)] | None = Field(default=None, alias="maxCPUPercent")
    """The share of the CPUs of a pod that computing may use on average: less heat and power, longer
    answers. Not given: all of them."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """How many computations may run at once. Not given: one for each CPU that the pod may use."""
    max_queued_requests: Annotated[int, Field(ge=1, le=65536)] | None = None
    """How many requests may wait before further ones are refused with 503. Not given: 64."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=2**31 - 1)] | None = None
    """The largest request (bytes). Not given: 64 MiB."""
    access_log_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """The share of the requests of which the log has a line; what failed always has one. Not given: none
    has."""
