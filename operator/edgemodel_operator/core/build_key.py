"""The build key: one hash over everything that decides the bytes of an image.

Equal keys promise equal index digests, on any machine and at any time; an image that exists under its key is
never built again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

KEY_SCHEMA = "edgemodel.dev/build-key/v1"
SHORT_LENGTH = 12


@dataclass(frozen=True)
class BuildInputs:
    """All inputs of one image. Where the source lies and where the image goes are not among them."""

    model_name: str
    model_version: str
    model_format: str
    source_sha256: str
    """SHA-256 of the model file (64 hex digits)."""
    runtime_digest: str
    """Digest (`sha256:…`) of the index of the runtime image of the variant."""
    platforms: tuple[str, ...]
    """`os/architecture`, in any order; empty means every platform of the runtime image."""
    assembler: str
    """Name and version of the code that lays out the image."""
    compressor: str
    """Name, level and library version of the layer compression."""
    weights_sha256: str = ""
    """SHA-256 of the file of the weights; empty where the format has none."""
    archive: str = ""
    """Where in the fetched archive the model lies (`/` where it is found by its name); empty: no archive."""
    preprocessing: str = ""
    """What the manifest says about pictures, as canonical JSON; empty: nothing."""
    sharding: str = ""
    """How the weights are spread over layers; empty: as the assembler does by itself."""
    conversion: str = ""
    """What converts the source and how, as canonical JSON; empty: nothing does."""
    dockerfile: str = ""
    """What makes the runtime below the model, as canonical JSON; empty: it is taken as it was published."""


def build_key(inputs: BuildInputs) -> str:
    """Give the key of the inputs: 64 hex digits. Order and repetition of platforms do not matter.

    What has a default is left out where it is that: an input that is new changes no key of before.
    """
    given = dataclasses.asdict(inputs)
    unset = [field.name for field in dataclasses.fields(inputs) if given[field.name] == field.default]
    document = {
        **{name: value for name, value in given.items() if name not in unset},
        "platforms": sorted(set(inputs.platforms)),
        "schema": KEY_SCHEMA,
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def index_tag(key: str) -> str:
    """Give the tag under which the index of a build key is found: for looking up, never for running."""
    return f"m-{key[:SHORT_LENGTH]}"


def child_tag(key: str, platform: str) -> str:
    """Give the tag of one platform's image; it keeps registry garbage collection away from the child."""
    return f"{index_tag(key)}-{platform.replace('/', '-')}"
