"""What can be fuzzed of what decides about trust."""

from collections.abc import Callable, Mapping

from fuzz.engine import Target
from fuzz.trust.documents import (
    bundle_manifest_target,
    bundle_target,
    payload_target,
    signatures_target,
    statement_target,
)
from fuzz.trust.key_files import KeyFileTarget
from fuzz.trust.reviews import ReviewTarget

TARGETS: Mapping[str, Callable[[], Target]] = {
    "statement": statement_target,
    "bundle": bundle_target,
    "payload": payload_target,
    "signatures": signatures_target,
    "bundle-manifest": bundle_manifest_target,
    "key-file": KeyFileTarget,
    "review": ReviewTarget,
}
