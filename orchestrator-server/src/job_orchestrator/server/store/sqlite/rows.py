"""Rows of the table ``jobs`` as values, and the conditions that select them by status."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from job_orchestrator.common.protocol.selection import ResultKind
from job_orchestrator.common.status import ACTIVE_JOB, DISPATCHED_JOB, FINAL_JOB, JobStatus
from job_orchestrator.server.model import Job

_FIELDS = tuple(field.name for field in fields(Job))

_STATUSES = {str(status): status for status in JobStatus}

_COLUMN_OF = {"client": "client_url"}
"""Fields whose column has another name. The column holds the client's name, URL or not."""


def columns_of(table: str) -> str:
    """Return the columns of a job, qualified with the name or alias of a table."""
    return ", ".join(f"{table}.{_COLUMN_OF.get(name, name)}" for name in _FIELDS)


COLUMNS = ", ".join(_COLUMN_OF.get(name, name) for name in _FIELDS)
"""Columns that ``job_of`` reads."""


def job_of(row: Sequence[Any]) -> Job:
    """Return the job of a row that was selected with ``COLUMNS``.

    Each change of a job converts its row, so the attributes are set together: the constructor of a
    frozen dataclass sets them one by one, which takes five times as long.
    """
    job = object.__new__(Job)
    values = job.__dict__
    values.update(zip(_FIELDS, row, strict=True))
    values["status"] = _STATUSES[values["status"]]
    values["has_output"] = bool(values["has_output"])
    values["outputs"] = tuple(values["outputs"].splitlines())
    values["results"] = ResultKind(values["results"])
    values["kill_requested"] = bool(values["kill_requested"])
    values["held"] = bool(values["held"])
    values["after_success"] = _ids(values["after_success"])
    values["after_end"] = _ids(values["after_end"])
    return job


def _ids(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(","))) if text else ()


def unknown_since(
    now: float, seconds: float, of: Mapping[str, float]
) -> tuple[float, float, str, float]:
    """Return the values of ``UNKNOWN_SINCE``; ``of`` has the seconds of some services."""
    return now - min((seconds, *of.values())), now, json.dumps(dict(of)), seconds


@cache
def status_in(statuses: frozenset[JobStatus]) -> str:
    """Return a condition on ``status``.

    It is sorted, and so has the very text of the condition of a partial index: SQLite uses a
    partial index only then. The words are our own, not input.
    """
    words = ", ".join(f"'{status}'" for status in sorted(statuses))
    return f"status IN ({words})"


IS_READY = "status = 'Queued' AND held = 0 AND open_dependencies = 0"
IS_ACTIVE = status_in(ACTIVE_JOB)
IS_DISPATCHED = status_in(DISPATCHED_JOB)
IS_ENDED = status_in(FINAL_JOB)
UNKNOWN_SINCE = f"""
SELECT {COLUMNS} FROM jobs WHERE status = 'Unknown' AND changed_at < ?
    AND changed_at < ? - coalesce((SELECT value FROM json_each(?) WHERE key = service), ?)
LIMIT 1000
"""  # noqa: S608
"""The first time is redundant; with it SQLite uses the index."""

HAS_KEY = "idempotency_key IS NOT NULL AND status <> 'Cleaned'"
