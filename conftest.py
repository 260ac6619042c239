"""For the tests of all folders."""

import signal


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start, also where they run in the background.

    Shells let those ignore it, and what ignores a signal hands that on to its children.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
