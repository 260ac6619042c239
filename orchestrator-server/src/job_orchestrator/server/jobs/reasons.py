"""Reasons of a job's state: a text for its user, and details for administrators.

Both are stored as one text. Details name clients, payloads and errors of connections, which users
neither know nor may learn. Everything that shows a reason gets it from ``reason_for``.
"""

TERMINATION_PENDING = "It will be ended as soon as its machine can be reached"
"""Added to the reason of a job whose termination was requested while its client was away."""

_DETAILS = "\x1f"
"""The unit separator of ASCII, which texts for people do not contain."""


def with_details(text: str, details: str) -> str:
    """Return the reason ``text`` with ``details``, as it is stored."""
    return f"{text}{_DETAILS}{details}"


def reason_for(stored: str, *, details: bool) -> str:
    """Return a stored reason as it is shown, for administrators with its ``details``."""
    text, mark, more = stored.partition(_DETAILS)
    return f"{text} ({more})" if mark and details else text
