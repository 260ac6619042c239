"""Counts the requests between the services, by the client's access log."""

import re
from collections import Counter
from pathlib import Path

_LINE = re.compile(r"\b(GET|POST|DELETE|PUT|PATCH|HEAD) (/\w*)\S* \d{3}\b")
EVENTS = "GET /events"
ACKNOWLEDGE = "DELETE /retrieve"


def count(log: Path) -> Counter[str]:
    """Requests that were answered so far, as ``GET /retrieve``."""
    return Counter(f"{method} {path}" for method, path in _LINE.findall(log.read_text()))
