"""What a request's path and query say, checked."""

from aiohttp import web

from orchestrator_common.errors import BadRequest
from orchestrator_server.errors import JobNotFound

MAX_WAIT_S = 60.0
_MAX_ID = 2**63 - 1


def job_id(request: web.Request) -> int:
    """The ``{id}`` of the path. Raises ``BadRequest``; ``JobNotFound`` for what can't be an id."""
    text = request.match_info["id"]
    if not (text.isascii() and text.isdigit()):
        raise BadRequest(f"Invalid job id {text[:40]!r}, should be a number")
    number = int(text[:20])
    if number > _MAX_ID:
        raise JobNotFound(number)
    return number


def wait_s(request: web.Request) -> float:
    """The ``wait`` of the query, in seconds; 0 without one. Raises ``BadRequest``."""
    text = request.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_S:
        raise BadRequest(f"Invalid wait {text[:40]!r}, should be seconds from 0 to {MAX_WAIT_S:g}")
    return seconds
