"""Log lines, as text and as JSON."""

import json
import logging
import sys

import pytest

# _OneLine: a record with an exception must be formatted outside of the logging of pytest.
from job_orchestrator.common.logs.setup import _OneLine, configure_logging


def test_log_lines_are_one_line_each_as_text_and_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure_logging("INFO", "text")
        logging.getLogger("a").info("file %s", "x\nERROR forged")
        configure_logging("INFO", "json")
        logging.getLogger("b").warning("hello")
    finally:
        root.handlers[:], level = before[0], before[1]
        root.setLevel(level)
    text, as_json = capsys.readouterr().err.splitlines()
    assert text.endswith("INFO a: file x\\nERROR forged")
    assert json.loads(as_json) | {"level": "WARNING", "message": "hello"} == json.loads(as_json)


@pytest.mark.parametrize("sent", ["\x1b[31m", "\x9b31m", "\0", "\x7f", "\x85", "\u2028", "\u202e"])
def test_log_escapes_control_characters_of_users(sent: str) -> None:
    try:
        raise ValueError(f"bad {sent}")
    except ValueError:
        record = logging.LogRecord("a", 20, "", 1, "GET /%s ä\t", (sent,), sys.exc_info())
    line, *traceback = _OneLine("%(message)s").format(record).split("\n")
    assert line == f"GET /{ascii(sent)[1:-1]} ä\t"
    assert traceback[-1] == f"ValueError: bad {ascii(sent)[1:-1]}"
