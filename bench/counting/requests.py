"""Counts the requests between the services from the client's access log."""

import re
from collections import Counter
from pathlib import Path

_LINE = re.compile(r"\b(GET|POST|DELETE|PUT|PATCH|HEAD) (/\w*)\S* \d{3}\b")


def count(log: Path) -> Counter[str]:
    """Count the answered requests by method and path, such as ``GET /retrieve``."""
    return Counter(f"{method} {path}" for method, path in _LINE.findall(log.read_text()))
