"""Handling of Ctrl-C: no traceback at any moment, and always the same exit status.

This module imports next to nothing, because it must work while everything else is being loaded.
"""

import os
import signal

INTERRUPTED = 130
"""Exit status: 128 plus the number of SIGINT, as shells report it."""


def exit_on_interrupt() -> None:
    """Make Ctrl-C end the process immediately and silently. An ignored Ctrl-C stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def raise_on_interrupt() -> None:
    """Make Ctrl-C raise ``KeyboardInterrupt``, where there is work to end or a message to print."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(*_: object) -> None:
    # Not an exception: the module that is being loaded would turn it into a traceback.
    os._exit(INTERRUPTED)
