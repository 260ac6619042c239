"""Fault injection for the tests of crashes.

Code whose crash must be harmless calls ``reach`` with a point. That costs a lookup in an empty
table, unless the process was started with the variable ``JO_FAULT``: a comma-separated list of

    POINT[:N[*][:KIND]]      server.claimed    server.kept:3    database:50*    disk.flush:1*:slow

The fault is triggered at the N-th arrival at the point (default 1), with ``*`` at every N-th.
Kinds: ``kill`` ends the process like ``kill -9``, ``fail`` raises an I/O error, ``slow`` sleeps for
half a second. The default is ``fail`` for ``database`` and ``disk.flush``, else ``kill``.
"""

import errno
import logging
import os
import re
import signal
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from job_orchestrator.common.errors import StartupError

logger = logging.getLogger(__name__)

VARIABLE = "JO_FAULT"
SLOW_S = 0.5


class Point(StrEnum):
    """The places at which a fault can be injected. Most values name what has just happened."""

    SERVER_FORM_WHOLE = "server.form-whole"
    SERVER_FOLDER_RENAMED = "server.folder-renamed"
    SERVER_FILES_ACCEPTED = "server.files-accepted"
    SERVER_BEFORE_COMMIT = "server.before-commit"
    SERVER_COMMITTED = "server.committed"
    SERVER_JOB_CREATED = "server.job-created"
    SERVER_RECALLED = "server.recalled"
    SERVER_CLAIMED = "server.claimed"
    SERVER_BEFORE_SEND = "server.before-send"
    SERVER_SENT = "server.sent"
    SERVER_SUBMITTED = "server.submitted"
    SERVER_END_ARRIVED = "server.end-arrived"
    SERVER_BEFORE_FETCH = "server.before-fetch"
    SERVER_RESULTS_ARRIVED = "server.results-arrived"
    SERVER_RESULTS_KEPT = "server.results-kept"
    SERVER_JOB_ENDED = "server.job-ended"
    SERVER_KILL_NOTED = "server.kill-noted"
    SERVER_PAYLOAD_KILLED = "server.payload-killed"
    SERVER_JOB_KILLED = "server.job-killed"
    SERVER_JOB_LOST = "server.job-lost"
    SERVER_STRAY_ENDED = "server.stray-ended"
    SERVER_JOB_CLEANED = "server.job-cleaned"
    SERVER_DISCARDED = "server.discarded"
    IMPORT_FILES_TAKEN = "import.files-taken"
    IMPORT_ROWS_WRITTEN = "import.rows-written"
    CLIENT_CLEARING = "client.clearing"
    CLIENT_ASSIGNED = "client.assigned"
    CLIENT_FORM_WHOLE = "client.form-whole"
    CLIENT_PAYLOAD_ADDED = "client.payload-added"
    CLIENT_BEFORE_START = "client.before-start"
    CLIENT_STARTED = "client.started"
    CLIENT_SCRIPT_ENDED = "client.script-ended"
    CLIENT_PACKING = "client.packing"
    CLIENT_PACKED = "client.packed"
    CLIENT_PAYLOAD_ENDED = "client.payload-ended"
    CLIENT_END_SENT = "client.end-sent"
    CLIENT_RECALLED = "client.recalled"
    CLIENT_KILL_NOTED = "client.kill-noted"
    CLIENT_KILLED = "client.killed"
    CLIENT_BEFORE_RESULTS = "client.before-results"
    CLIENT_DISCARDED = "client.discarded"
    DATABASE = "database"
    DISK_FLUSH = "disk.flush"


_FAILING = frozenset({Point.DATABASE, Point.DISK_FLUSH})
_SYNTAX = re.compile(
    r"(?P<point>[a-z.-]+)(?::(?P<nth>[1-9]\d{0,8})(?P<repeats>\*?))?(?::(?P<kind>kill|fail|slow))?"
)


@dataclass
class _Fault:
    """A fault at a point. ``repeats``: at every ``nth`` arrival, else at that one only."""

    nth: int
    repeats: bool
    kind: str
    arrivals: int = 0


_armed: dict[Point, _Fault] = {}
_counting = threading.Lock()


def arm(environment: Mapping[str, str]) -> None:
    """Arm the faults that ``JO_FAULT`` names, and no others. Raises ``StartupError``."""
    _armed.clear()
    for text in environment.get(VARIABLE, "").split(","):
        if text.strip():
            point, fault = _parse(text.strip())
            _armed[point] = fault
            logger.warning("%s: %s at %s, number %d", VARIABLE, fault.kind, point, fault.nth)


def reach(point: Point) -> None:
    """Trigger the fault that is armed for ``point``, if any. Thread-safe.

    Raises ``OSError`` for a fault of the kind ``fail``.
    """
    if _armed:
        _arrive(point)


def database_class() -> type[sqlite3.Connection]:
    """Return the class of database connections: SQLite's own, unless statements must fail."""
    return _FailingConnection if Point.DATABASE in _armed else sqlite3.Connection


class _FailingConnection(sqlite3.Connection):
    """A connection whose statements fail before they have any effect.

    Except ROLLBACK, which writes nothing, and which SQLite does itself after an I/O error.
    """

    def execute(self, *args: Any) -> sqlite3.Cursor:
        if args[0] != "ROLLBACK":
            self._arrive()
        return super().execute(*args)

    def executescript(self, *args: Any) -> sqlite3.Cursor:
        self._arrive()
        return super().executescript(*args)

    def _arrive(self) -> None:
        try:
            reach(Point.DATABASE)
        except OSError as error:
            failure = sqlite3.OperationalError("disk I/O error")
            failure.sqlite_errorcode = sqlite3.SQLITE_IOERR
            failure.sqlite_errorname = "SQLITE_IOERR"
            raise failure from error


def _parse(text: str) -> tuple[Point, _Fault]:
    match = _SYNTAX.fullmatch(text)
    if match is None or match["point"] not in set(Point):
        raise StartupError(
            f"{VARIABLE} holds {text!r}; it must be POINT[:N[*][:KIND]], the point one of"
            f" {', '.join(Point)}, the kind kill, fail or slow. It is for tests: leave it unset"
        )
    point = Point(match["point"])
    kind = match["kind"] or ("fail" if point in _FAILING else "kill")
    return point, _Fault(int(match["nth"] or 1), bool(match["repeats"]), kind)


def _arrive(point: Point) -> None:
    fault = _armed.get(point)
    if fault is None:
        return
    with _counting:
        fault.arrivals += 1
        due = fault.arrivals == fault.nth or (fault.repeats and fault.arrivals % fault.nth == 0)
    if not due:
        return
    logger.warning("%s: %s at %s", VARIABLE, fault.kind, point)
    if fault.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.kind == "fail":
        raise OSError(errno.EIO, f"{os.strerror(errno.EIO)} ({VARIABLE})")
    else:
        time.sleep(SLOW_S)
