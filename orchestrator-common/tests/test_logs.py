"""Log lines as text and as JSON, and the fields of their context."""

import asyncio
import io
import json
import logging
import sys

import pytest

from job_orchestrator.common.logs.context import AddFields, logging_about
from job_orchestrator.common.logs.formatters import JsonFormatter, TextFormatter, feature_line
from job_orchestrator.common.logs.setup import configure_logging
from job_orchestrator.common.logs.stream import JoiningHandler


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


async def test_records_of_a_pass_are_one_write_and_a_warning_does_not_wait() -> None:
    writes: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    log = logging.Logger("a")
    log.addHandler(JoiningHandler(Stream()))
    log.info("1")
    log.info("2")
    assert writes == []
    await asyncio.sleep(0)
    assert writes == ["1\n2\n"]
    log.info("3")
    log.warning("4")
    assert writes == ["1\n2\n", "3\n4\n"]
    await asyncio.to_thread(log.info, "5")
    assert writes[2:] == ["5\n"]


def test_time_of_a_record_is_local_with_milliseconds() -> None:
    formatter = TextFormatter("%(asctime)s")
    for created in (1_700_000_000.0, 1_700_000_000.256, 1_700_000_001.0):
        record = logging.LogRecord("a", 20, "", 1, "", (), None)
        record.created, record.msecs = created, created % 1 * 1000
        assert formatter.format(record) == logging.Formatter("%(asctime)s").format(record)


@pytest.mark.parametrize("sent", ["\x1b[31m", "\x9b31m", "\0", "\x7f", "\x85", "\u2028", "\u202e"])
def test_control_characters_in_data_of_users_are_escaped(sent: str) -> None:
    try:
        raise ValueError(f"bad {sent}")
    except ValueError:
        record = logging.LogRecord("a", 20, "", 1, "GET /%s ä\t", (sent,), sys.exc_info())
    line, *traceback = TextFormatter("%(message)s").format(record).split("\n")
    assert line == f"GET /{ascii(sent)[1:-1]} ä\t"
    assert traceback[-1] == f"ValueError: bad {ascii(sent)[1:-1]}"


def test_json_line_has_the_documented_members_in_order() -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        record = logging.LogRecord("a", 20, "", 1, "at %d ä", (7,), sys.exc_info())
    record.stack_info = "stack"
    with logging_about(job=3, user=None):
        assert AddFields().filter(record)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert line.isascii()
    found = json.loads(line)
    assert list(found) == ["time", "level", "name", "message", "exc_info", "stack_info", "job"]
    assert (found["level"], found["name"], found["message"]) == ("INFO", "a", "at 7 ä")
    assert found["exc_info"].endswith("ValueError: bad")
    assert (found["stack_info"], found["job"]) == ("stack", 3)


def test_value_that_json_does_not_know_is_written_as_text() -> None:
    record = logging.LogRecord("a", 20, "", 1, "x", (), None)
    with logging_about(path={1}):
        AddFields().filter(record)
    assert json.loads(JsonFormatter().format(record))["path"] == "{1}"


def test_features_are_listed_as_on_and_off() -> None:
    assert feature_line({"a": True, "b": False, "c": True}) == "On: a, c. Off: b"
    assert feature_line({}) == "On: nothing. Off: nothing"
