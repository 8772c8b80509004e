"""The one way in which a reader refuses a model."""

from __future__ import annotations


class Objection(Exception):  # noqa: N818 - reads as the fact it states
    """The file is not acceptable; the message is a sentence."""
