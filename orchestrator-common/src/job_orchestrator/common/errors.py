"""The root of the domain errors.

A domain error says what happened in words that its reader can act on. It knows nothing of HTTP:
each app has one table that gives a status code to an error class (see ``web.error_answers``).
"""

import os
import ssl

NO_SUCH_PATH = "no-such-path"
TOO_MUCH_STORED = "too-much-stored"


class DomainError(Exception):
    """A fact of the domain that the caller has to know; ``str(error)`` is the message for them.

    ``code`` is for programs, where the status code of the answer does not tell them enough.
    """

    code = ""


class StartupError(DomainError):
    """The service can't start as it is set up. Printed as one line; exit status 2."""


class TryLater(DomainError):
    """Nothing is wrong with what was asked, but not now."""

    retry_after_s = 5


class BadRequest(DomainError):
    """What was sent can't be used as it is; the message says what to change."""


class TooLarge(BadRequest):
    """More bytes, files or fields were sent than this service accepts."""


class NoSuchPath(DomainError):
    """Nothing is at this path; not one that has nothing to give now."""

    code = NO_SUCH_PATH


class Unauthorized(DomainError):
    """Who asks has shown no token that is known here."""


class Forbidden(DomainError):
    """Who asks is known, and may not do this."""


class Unhealthy(DomainError):
    """Something that the service can't work without does not work."""


class StorageFull(DomainError):
    """The disk has no room (ENOSPC, EDQUOT). Nothing was kept; the same call works once it has."""


def describe_os_error(error: OSError) -> str:
    """A failed connection as the system says it: asyncio's text names a call and an address.

    Errors of TLS have numbers of their own, which mean something else to the system.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate can't be trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return "what listens there speaks no TLS that can be understood (http, not https?)"
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)
