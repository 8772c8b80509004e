"""Looks for secrets where they do not belong: as they are, and in the encodings in which they may travel."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from urllib.parse import quote
from urllib.request import Request, urlopen

import zstandard

MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
MIN_BYTES = 12
"""A shorter secret would be found by chance."""


def forms_of(secret: bytes) -> set[bytes]:
    """Give the secret as it is, in hex, quoted for a URL, and in base64 at each of the three alignments."""
    if len(secret) < MIN_BYTES:
        raise ValueError(f"a mark of {len(secret)} bytes would be found by chance")
    forms = {secret, secret.hex().encode(), secret.hex().upper().encode(), quote(secret).encode()}
    for shift in range(3):
        # What stands before and after decides the first and the last characters, so they are left out.
        encoded = base64.b64encode(b"\0" * shift + secret)
        inner = encoded[4 if shift else 0 : len(encoded) // 4 * 4 - 4]
        forms |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


class Marks:
    """Secrets by name, to be looked for."""

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        self._forms = {name: forms_of(secret) for name, secret in secrets.items()}

    def found_in(self, text: bytes) -> set[str]:
        """Name the secrets that stand in a text, in whatever form."""
        return {name for name, forms in self._forms.items() if any(form in text for form in forms)}


def repository_contents(host: str, repository: str) -> Iterator[tuple[str, bytes]]:
    """Give every manifest and blob that the tags of a repository lead to, blobs also unpacked."""
    base = f"http://{host}/v2/{repository}"
    waiting = [f"manifests/{tag}" for tag in _get_json(f"{base}/tags/list")["tags"]]
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        body = _get(f"{base}/{path}")
        yield path, body
        if path.startswith("manifests/"):
            document = json.loads(body)
            waiting += [f"manifests/{item['digest']}" for item in document.get("manifests", ())]
            blobs = [*document.get("layers", ()), document.get("config")]
            waiting += [f"blobs/{item['digest']}" for item in blobs if item]
        else:
            yield f"{path} unpacked", _unpacked(body)


def _unpacked(body: bytes) -> bytes:
    if body.startswith(GZIP):
        try:
            return gzip.decompress(body)
        except (OSError, EOFError, zlib.error):
            return body
    if body.startswith(ZSTD):
        return zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True).read()
    return body


def _get(url: str) -> bytes:
    request = Request(url, headers={"Accept": ", ".join(MANIFESTS)})  # noqa: S310 - http, from the test
    with urlopen(request, timeout=60) as response:  # noqa: S310
        body: bytes = response.read()
        return body


def _get_json(url: str) -> dict[str, list[str]]:
    document: dict[str, list[str]] = json.loads(_get(url))
    return document
