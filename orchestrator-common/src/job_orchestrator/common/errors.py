"""The root of the domain errors.

The message of a domain error says what happened in words that its reader can act on. It does not
depend on HTTP: each service has one table of status codes by error class (see ``web.errors``).
"""

import os
import ssl

NO_SUCH_JOB = "no-such-job"
"""Code of a 404 for a job that does not exist, or belongs to another user."""

NO_SUCH_PATH = "no-such-path"
NO_SUCH_CLIENT = "no-such-client"
CLIENT_IN_USE = "client-in-use"
GIVEN_BACK = "given-back"
TOO_MUCH_STORED = "too-much-stored"


class DomainError(Exception):
    """An error that the caller must know of; ``str(error)`` is the message for them.

    ``code`` is for programs, where the status code of the answer is not specific enough.
    """

    code = ""


class StartupError(DomainError):
    """The service can't start with its settings. Printed as one line; exit status 2."""


class TryLater(DomainError):
    """The request is correct, but can't be served now."""

    retry_after_s = 5


class BadRequest(DomainError):
    """The request is not acceptable; the message says what to change."""


class TooLarge(BadRequest):
    """The request has more bytes, files or fields than this service accepts."""


class FilesTooLarge(TooLarge):
    """The files of a request together have more bytes than this service accepts."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"File too large: at most {max_bytes} bytes in all")


class NoSuchPath(DomainError):
    """The URL path does not exist. Not for paths whose content is missing at present."""

    code = NO_SUCH_PATH


class Unauthorized(DomainError):
    """The request has no valid token."""


class Forbidden(DomainError):
    """The token of the request does not permit this."""


class Unhealthy(DomainError):
    """A part that the service needs, such as its database, does not work."""


class StorageFull(DomainError):
    """The disk is full (ENOSPC, EDQUOT). Nothing was kept; the call can be repeated later."""


def describe_os_error(error: OSError) -> str:
    """Describe a failed connection in the words of the system; asyncio's are those of its code.

    Errors of TLS have different numbers, which are not error numbers of the system.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate can't be trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return "what listens there speaks no TLS that can be understood (http, not https?)"
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)
