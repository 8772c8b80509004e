"""Logs are one JSON object per line."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from edgemodel_operator.web.logs import JsonFormatter, configure_logging


def formatted(**fields: Any) -> dict[str, Any]:
    record = logging.getLogger("edgemodel").makeRecord(
        "edgemodel", logging.WARNING, __file__, 1, "two\nlines of %s", ("text",), None, extra=fields
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    document: dict[str, Any] = json.loads(line)
    return document


def test_a_record_is_one_line_with_its_extra_fields() -> None:
    line = formatted(user="kim", images=["a"])
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "edgemodel",
        "message": "two\nlines of text",
        "user": "kim",
        "images": ["a"],
    }


def test_what_json_does_not_know_becomes_text() -> None:
    assert formatted(path=object)["path"] == "<class 'object'>"


@pytest.fixture
def untouched_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


@pytest.mark.usefixtures("untouched_root")
def test_configured_logging_writes_json_with_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    log = logging.getLogger("edgemodel.test")
    log.debug("not shown")
    try:
        raise ValueError("x")
    except ValueError:
        log.exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    document = json.loads(line)
    assert document["level"] == "error"
    assert "ValueError: x" in document["exception"]
