"""Ctrl-C, at any moment: no traceback, and always the same exit status.

It imports next to nothing, because it must work while everything else is loaded.
"""

import os
import signal

INTERRUPTED = 130
"""128 and the signal's number, as a shell says it."""


def leave_when_interrupted() -> None:
    """From here on Ctrl-C ends the program at once. Does nothing where it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_when_interrupted() -> None:
    """From here on Ctrl-C raises ``KeyboardInterrupt``: there is something to end, or to tell."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: object) -> None:
    # Nobody is told: whatever is being loaded would make a traceback of an exception.
    os._exit(INTERRUPTED)
