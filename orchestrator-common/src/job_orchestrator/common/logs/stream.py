"""Handler that writes the log to a stream."""

import asyncio
import logging
from typing import TextIO


class JoiningHandler(logging.StreamHandler[TextIO]):
    """Writes the records of one pass of the event loop together: a write costs as much as a record.

    Records from WARNING up, and those of threads without an event loop, are written immediately,
    after all that were logged before.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Format a record. It is written immediately or at the end of the pass."""
        try:
            self._lines.append(self.format(record) + self.terminator)
            if record.levelno >= logging.WARNING or not _is_in_loop():
                self.flush()
            elif len(self._lines) == 1:
                asyncio.get_running_loop().call_soon(self._end_pass, record)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write the records that wait."""
        self.acquire()
        try:
            lines, self._lines = self._lines, []
            if lines:
                self.stream.write("".join(lines))
            super().flush()
        finally:
            self.release()

    def _end_pass(self, first: logging.LogRecord) -> None:
        try:
            self.flush()
        except Exception:
            self.handleError(first)


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
