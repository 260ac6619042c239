"""Logging of both services: one line per event on standard error, as text or JSON."""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
FORMATS = ("text", "json")

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _OneLine(logging.Formatter):
    """Keeps what users send (file names, say) from forging log lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).replace("\n", "\\n").replace("\r", "\\r")


def configure_logging(level: str, log_format: str) -> None:
    """Send the root logger's records from ``level`` up to standard error.

    ``level`` is one of ``LEVELS``, ``log_format`` one of ``FORMATS``.
    """
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        fields = "%(asctime)s %(levelname)s %(name)s %(message)s"
        handler.setFormatter(
            JsonFormatter(fields, rename_fields={"asctime": "time", "levelname": "level"})
        )
    else:
        handler.setFormatter(_OneLine(_TEXT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # It logs every statement with its values, which says nothing that our own lines don't.
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)
