"""Context fields (job, user, request id) that are added to every log record of the current task.

They are kept in a context variable: code that a task calls logs them without any parameter.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

REQUEST_ID = "request_id"
"""Field with the id of a request, which the services pass on in ``X-Request-Id``."""

_fields: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default={})  # noqa: B039


@contextmanager
def logging_about(**fields: object) -> Iterator[None]:
    """Add ``fields`` to the context within the block. A field of None changes nothing."""
    known = {name: value for name, value in fields.items() if value is not None}
    token = _fields.set({**_fields.get(), **known})
    try:
        yield
    finally:
        _fields.reset(token)


def log_fields() -> Mapping[str, object]:
    """Return the fields of the current task."""
    return _fields.get()


def request_id() -> str | None:
    """Return the id of the request that the current task answers or sends, if any."""
    found = _fields.get().get(REQUEST_ID)
    return None if found is None else str(found)


class AddFields(logging.Filter):
    """Adds the fields of the current task to each record, as the mapping ``record.about``.

    Fields of a record that was logged with ``extra={"about": …}`` are kept; they win.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields. No record is dropped."""
        record.about = {**log_fields(), **getattr(record, "about", {})}
        return True
