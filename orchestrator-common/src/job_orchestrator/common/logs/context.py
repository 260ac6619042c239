"""What a piece of work is about, so that each line that is logged meanwhile says so.

The fields travel with the task (``contextvars``): whatever it calls logs them without being told.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

REQUEST_ID = "request_id"
"""By which a request's id goes from service to service."""

_fields: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default={})  # noqa: B039


@contextmanager
def logging_about(**fields: object) -> Iterator[None]:
    """Log ``fields`` with every line of the block. None means: as before."""
    known = {name: value for name, value in fields.items() if value is not None}
    token = _fields.set({**_fields.get(), **known})
    try:
        yield
    finally:
        _fields.reset(token)


def log_fields() -> Mapping[str, object]:
    """The fields of the present task."""
    return _fields.get()


def request_id() -> str | None:
    """The id of the request that the present task answers, or that it makes."""
    found = _fields.get().get(REQUEST_ID)
    return None if found is None else str(found)


class AddFields(logging.Filter):
    """Gives every record the fields of its task: ``record.about``, a mapping.

    A record that was logged with ``extra={"about": …}`` keeps those too.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add them; never drops a record."""
        record.about = {**log_fields(), **getattr(record, "about", {})}
        return True
