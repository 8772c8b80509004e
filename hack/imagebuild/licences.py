"""Licences as SPDX expressions, from what Debian packages and wheels say of themselves. Pure.

Sources: Debian's machine-readable copyright files, format 1.0 (DEP-5); core metadata of Python packages: the
fields `License-Expression` (PEP 639), `License` and `Classifier`; the SPDX licence list. Where these say
nothing that can be read the answer is empty: nothing is guessed from texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message

from license_expression import (  # type: ignore[import-untyped, unused-ignore]
    ExpressionError,
    get_spdx_licensing,
)

_SPDX = get_spdx_licensing()
_MACHINE_READABLE = re.compile(r"Format:\s*https?://\S*copyright-format/1\.0")
_GNU = re.compile(r"(?P<family>A?GPL|LGPL)(?:-(?P<version>\d(?:\.\d)?))?(?P<later>\+)?", re.IGNORECASE)
_DEBIAN_NAMES = {
    "apache-2": "Apache-2.0",
    "artistic": "Artistic-1.0-Perl",
    "expat": "MIT",
    "mit/x11": "MIT",
    "mpl-1.1": "MPL-1.1",
    "python": "Python-2.0",
    "zlib": "Zlib",
}
_COMMON_NAMES = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}


def debian_licence(copyright_file: str) -> str:
    """Give the licences of a Debian copyright file, all of which hold; empty unless it is machine-readable.

    What SPDX has no name for is called `LicenseRef-Debian-NAME`.
    """
    if not _MACHINE_READABLE.match(copyright_file):
        return ""
    expressions = {_from_debian(name) for name in _short_names(copyright_file)}
    several = len(expressions) > 1
    return " AND ".join(f"({one})" if several and " OR " in one else one for one in sorted(expressions))


def wheel_licence(metadata: Message) -> str:
    """Give the licence that the metadata of a wheel names; empty where it is not one name or expression."""
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier", [])
        if text.startswith("License :: ")
    ]
    stated = [metadata.get("License-Expression", ""), metadata.get("License", "")]
    for text in [*stated, *(classifiers if len(classifiers) == 1 else [])]:
        if expression := _expression(_COMMON_NAMES.get(text.strip().lower(), text.strip())):
            return expression
    return ""


def _short_names(copyright_file: str) -> Iterator[str]:
    """Give the names in the paragraphs about files, but not those of other paragraphs."""
    for paragraph in re.split(r"\n\s*\n", copyright_file):
        match = re.search(r"^License:[ \t]*(\S[^\n]*)$", paragraph, re.MULTILINE)
        if match and re.search(r"^Files:", paragraph, re.MULTILINE):
            yield match[1].strip()


def _from_debian(text: str) -> str:
    parts = re.split(r"\s+(and|or)\s+", text)
    words = [part.upper() if index % 2 else _name(part) for index, part in enumerate(parts)]
    return _expression(" ".join(words)) or _reference(text)


def _name(short: str) -> str:
    if match := _GNU.fullmatch(short):
        version = match["version"] or "1"
        later = match["later"] or not match["version"]  # a GPL without a version: any of them
        full = f"{match['family'].upper()}-{version if '.' in version else f'{version}.0'}"
        known = _expression(f"{full}-{'or-later' if later else 'only'}")
        return known or _reference(short)
    return _expression(_DEBIAN_NAMES.get(short.lower(), short)) or _reference(short)


def _reference(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", name.replace("+", "-or-later"))
    return f"LicenseRef-Debian-{plain.strip('-')}"


def _expression(text: str) -> str:
    """Give the text as SPDX writes it, empty if it is no expression of the SPDX list (and our references)."""
    if not text or "\n" in text or len(text) > 400:
        return ""
    try:
        parsed = _SPDX.parse(text)
    except ExpressionError:
        return ""
    unknown = {str(key) for key in _SPDX.unknown_license_keys(parsed)} if parsed is not None else {""}
    return "" if any(not key.startswith("LicenseRef-Debian-") for key in unknown) else str(parsed)
