"""The loop engine, owned tasks, threads, durable writes, settings readers and logs."""

import asyncio
import json
import logging
import os
import sys
import threading
from pathlib import Path

import pytest

from job_orchestrator.common.config.reader import Option, SettingError, SettingsReader
from job_orchestrator.common.errors import StorageFull
from job_orchestrator.common.logs.setup import _OneLine, configure_logging
from job_orchestrator.common.runtime.loops import Loop, TaskOwner
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.storage.durable import (
    fsync_tree,
    full_disk_as_domain_error,
    write_durably,
)


async def test_wake_up_during_a_pass_leads_to_another_pass() -> None:
    passes = asyncio.Queue[int]()
    go_on = asyncio.Event()

    async def run_pass() -> None:
        passes.put_nowait(1)
        await go_on.wait()

    loop = Loop("test", run_pass, interval_s=3600)
    loop.start()
    async with asyncio.timeout(10):
        await passes.get()
        loop.wake()
        go_on.set()
        await passes.get()
    assert loop.alive
    await loop.stop()
    assert not loop.alive
    await loop.stop()


async def test_failing_pass_is_logged_counted_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recovered = asyncio.Event()
    outcomes = iter([ValueError("no"), ValueError("no"), None])

    async def run_pass() -> None:
        error = next(outcomes, None)
        if error is not None:
            raise error
        recovered.set()

    loop = Loop("test", run_pass, interval_s=0.001)
    loop.start()
    async with asyncio.timeout(10):
        await recovered.wait()
    await loop.stop()
    assert loop.failures == 0
    assert [r.getMessage() for r in caplog.records].count(
        "test: pass failed, next try in 0.0 s"
    ) == 2


async def test_stop_cancels_a_pass_that_outlasts_its_grace() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def run_pass() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    loop = Loop("test", run_pass, interval_s=1)
    loop.start()
    await begun.wait()
    await loop.stop(grace_s=0)
    assert cancelled.is_set()


async def test_owner_bounds_reports_and_ends_its_tasks(caplog: pytest.LogCaptureFixture) -> None:
    owner = TaskOwner("owner", limit=2)

    async def fails() -> None:
        raise ValueError("lost")

    async def waits() -> None:
        await asyncio.Event().wait()

    owner.spawn(fails(), "one")
    assert owner.free == 1
    await owner.drain(10)
    assert owner.free == 2
    assert "owner:one: task failed" in caplog.text
    task = owner.spawn(waits(), "two")
    await owner.close()
    assert task.cancelled()


async def test_cancelled_caller_waits_for_its_thread() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


def test_durable_write_replaces_the_whole_and_leaves_no_temporary(tmp_path: Path) -> None:
    write_durably(tmp_path / "x", b"one")
    write_durably(tmp_path / "x", b"two")
    fsync_tree(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"x": b"two"}


def test_only_a_full_disk_is_a_full_storage() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(StorageFull), full_disk_as_domain_error():
            os.write(descriptor, b"x")
    finally:
        os.close(descriptor)
    with pytest.raises(FileNotFoundError), full_disk_as_domain_error():
        Path("/nowhere/x").read_bytes()


def reader(**values: str) -> SettingsReader:
    return SettingsReader(values, {"FLAGGED": values.get("FLAGGED")})


def test_unset_and_blank_settings_take_the_default() -> None:
    settings = reader(BLANK="  ")
    assert settings.integer("BLANK", 3, minimum=0, maximum=9) == 3
    assert settings.duration_s("UNSET", 1.5) == 1.5
    assert settings.choice("UNSET", "a", ("a", "b")) == "a"
    assert settings.urls("UNSET") == ()
    assert settings.path("UNSET", "./x") == Path.cwd() / "x"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("x", "--flagged is 'x'; it must be a whole number from 0 to 9"),
        ("10", "--flagged is '10'; it must be a whole number from 0 to 9"),
    ],
)
def test_bad_flag_is_named_as_a_flag(value: str, told: str) -> None:
    with pytest.raises(SettingError) as error:
        reader(FLAGGED=value).integer("FLAGGED", 3, minimum=0, maximum=9)
    assert str(error.value) == told


def test_option_gives_its_flag() -> None:
    assert Option("MAX_AGE", "1", "x").flag == "--max-age"


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
def test_what_users_send_does_nothing_to_the_terminal_of_who_reads_the_log(sent: str) -> None:
    try:
        raise ValueError(f"bad {sent}")
    except ValueError:
        told = logging.LogRecord("a", 20, "", 1, "GET /%s ä\t", (sent,), sys.exc_info())
    line, *traceback = _OneLine("%(message)s").format(told).split("\n")
    assert line == f"GET /{ascii(sent)[1:-1]} ä\t"
    assert traceback[-1] == f"ValueError: bad {ascii(sent)[1:-1]}"
