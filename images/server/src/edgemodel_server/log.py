"""JSON log lines on standard error: one object per line, with its time, level and event."""

import json
import logging
import sys
from datetime import UTC, datetime

from edgemodel_server.override import override

_LOGGER = logging.getLogger("edgemodel_server")


class _JsonFormatter(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_log() -> None:
    """Send every log line of the process to standard error as JSON; called once by ``main``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def log_info(event: str, **fields: object) -> None:
    """Log what happened, in the past tense or as a noun; the facts are fields."""
    _LOGGER.info(event, extra={"fields": fields})


def log_warning(event: str, **fields: object) -> None:
    """Log something that a person should look at, though the server goes on."""
    _LOGGER.warning(event, extra={"fields": fields})


def log_exception(event: str, **fields: object) -> None:
    """Log the exception being handled, with its traceback."""
    _LOGGER.exception(event, extra={"fields": fields})


def log_error(event: str, **fields: object) -> None:
    """Log a failure that keeps the server, or one of its models, from serving."""
    _LOGGER.error(event, extra={"fields": fields})
