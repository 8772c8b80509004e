"""Licences of Debian packages and wheels as SPDX expressions."""

from __future__ import annotations

from email import message_from_string

import pytest

from imagebuild.licences import debian_licence, wheel_licence

HEADER = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nSource: somewhere\n"


def copyright_file(*licences: str) -> str:
    return HEADER + "".join(
        f"\nFiles: {n}\nCopyright: somebody\nLicense: {x}\n" for n, x in enumerate(licences)
    )


@pytest.mark.parametrize(
    ("debian", "spdx"),
    [
        ("Expat", "MIT"),
        ("GPL-2", "GPL-2.0-only"),
        ("GPL-2+", "GPL-2.0-or-later"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("GPL", "GPL-1.0-or-later"),
        ("zlib", "Zlib"),
        ("Artistic or GPL-1+", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
        ("GPL-3+ with a twist", "LicenseRef-Debian-GPL-3-or-later-with-a-twist"),
        ("public-domain", "LicenseRef-Debian-public-domain"),
    ],
)
def test_debian_names_become_those_of_spdx(debian: str, spdx: str) -> None:
    assert debian_licence(copyright_file(debian)) == spdx


def test_all_licences_of_a_package_hold() -> None:
    text = copyright_file("Expat", "GPL-2 or Artistic", "Expat")
    assert debian_licence(text) == "(GPL-2.0-only OR Artistic-1.0-Perl) AND MIT"


def test_paragraphs_that_speak_of_no_files_do_not_count() -> None:
    assert debian_licence(copyright_file("Expat") + "\nLicense: GPL-3\n The text of it.\n") == "MIT"


def test_a_copyright_file_in_prose_says_nothing() -> None:
    assert debian_licence("This is the Debian package of something.\n\nLicense: GPL-2\nFiles: *\n") == ""


@pytest.mark.parametrize(
    ("metadata", "spdx"),
    [
        ("License-Expression: MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("License: Apache 2.0", "Apache-2.0"),
        ("License: MIT", "MIT"),
        ("License: Dual License\nClassifier: License :: OSI Approved :: MIT License", "MIT"),
        ("Classifier: License :: A :: MIT License\nClassifier: License :: A :: BSD License", ""),
        ("License: Redistribution and use in source and binary forms", ""),
        ("Name: nothing", ""),
    ],
)
def test_a_wheel_is_believed_where_it_is_clear(metadata: str, spdx: str) -> None:
    assert wheel_licence(message_from_string(f"{metadata}\n\n")) == spdx
