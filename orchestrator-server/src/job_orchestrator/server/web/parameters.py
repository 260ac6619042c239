"""Checked parameters from the path, the query and the body of a request.

Bodies refuse unknown fields: a misspelled one would have no effect.
"""

import re
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web

from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.status import JobStatus
from job_orchestrator.server.model import (
    MAX_JOB_ID,
    MAX_PRIORITY,
    MAX_USER_ID,
    MIN_USER_ID,
    JobFilter,
    Principal,
)

T = TypeVar("T", bound=msgspec.Struct)

MAX_WAIT_S = 60.0
MAX_PAGE = 500
_SIGNED_NUMBER = re.compile(r"-?\d{1,10}", re.ASCII)

PRINCIPAL = web.RequestKey("principal", Principal)
"""Principal that sent the request. ``access`` sets it on every route that requires a token."""


class JobChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``PATCH /jobs/{id}``: changes of a queued job; None leaves a field as it is."""

    held: bool | None = None
    priority: Annotated[int, msgspec.Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = None


class PauseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /pause`` and ``POST /resume``: a service, a user, or both."""

    service: str | None = None
    user_id: Annotated[int, msgspec.Meta(ge=MIN_USER_ID, le=MAX_USER_ID)] | None = None


def job_id(request: web.Request) -> int:
    """Return the ``{id}`` of the path. Raises ``BadRequest``."""
    text = request.match_info["id"]
    number = _id_of(text)
    if number is None:
        bound = " of at most 63 bits" if text.isascii() and text.isdigit() else ""
        raise BadRequest(f"Invalid job id {text[:40]!r}, should be a number{bound}")
    return number


def _id_of(text: str) -> int | None:
    """Convert digits to a number that can be the id of a job; None if they are not one."""
    digits = text.lstrip("0") or text[:1]
    # int() refuses thousands of digits.
    if not (text.isascii() and text.isdigit() and len(digits) <= len(str(MAX_JOB_ID))):
        return None
    number = int(digits)
    return number if number <= MAX_JOB_ID else None


async def json_body(request: web.Request, kind: type[T]) -> T:
    """Return the JSON body of a request. Raises ``BadRequest``."""
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"Invalid JSON: {error}") from error


def wait_s(request: web.Request) -> float:
    """Return the ``wait`` of the query in seconds, 0 by default. Raises ``BadRequest``."""
    text = request.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_S:
        raise BadRequest(f"Invalid wait {text[:40]!r}, should be seconds from 0 to {MAX_WAIT_S:g}")
    return seconds


def sees_details(request: web.Request) -> bool:
    """Return whether the sender sees reasons with their details: only administrators do."""
    return request[PRINCIPAL].is_admin


def user_id(request: web.Request) -> int | None:
    """Return the user whose jobs may be listed, None for all users.

    Raises ``BadRequest``, ``Forbidden``.
    """
    text = request.query.get("user_id")
    if text is not None and not _SIGNED_NUMBER.fullmatch(text):
        raise BadRequest(f"Invalid user_id {text[:40]!r}, should be a number")
    return request[PRINCIPAL].narrow(None if text is None else int(text))


def job_filter(request: web.Request) -> JobFilter:
    """Return the filter for a list of jobs. Raises ``BadRequest``, ``Forbidden``."""
    service, tag = request.query.get("service"), request.query.get("tag")
    return JobFilter(
        user_id=user_id(request),
        service=service.strip().lower() if service else None,
        statuses=_statuses(request.query.get("status", "")),
        tag=tag.strip() if tag else None,
        array_id=_array_id(request.query.get("array")),
    )


def _array_id(text: str | None) -> int | None:
    if text is None:
        return None
    number = _id_of(text)
    if number is None:
        raise BadRequest(f"Invalid array {text[:40]!r}, should be the id of an array")
    return number


def _statuses(text: str) -> tuple[JobStatus, ...]:
    by_name = {status.value.lower(): status for status in JobStatus}
    names = dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip())
    for name in names:
        if name not in by_name:
            allowed = ", ".join(JobStatus)
            raise BadRequest(f"Invalid status {name[:40]!r}, should be among {allowed}")
    return tuple(by_name[name] for name in names)


def page_size(request: web.Request) -> int:
    """Return the ``limit`` of the query. Raises ``BadRequest``."""
    text = request.query.get("limit", "50")
    if not (_SIGNED_NUMBER.fullmatch(text) and 1 <= int(text) <= MAX_PAGE):
        raise BadRequest(f"Invalid limit {text[:40]!r}, should be a number from 1 to {MAX_PAGE}")
    return int(text)


def cursor(request: web.Request) -> int:
    """Return the exclusive upper bound of the ids on the page. Raises ``BadRequest``."""
    text = request.query.get("after")
    if text is None:
        return MAX_JOB_ID
    number = _id_of(text)
    if number is None:
        raise BadRequest(f"Invalid after {text[:40]!r}, should be the next of an earlier page")
    return number
