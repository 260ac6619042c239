"""JSON of the messages: exact when written, lenient when read."""

import json
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from job_orchestrator.common.messages.encoding import WireTime, encode
from job_orchestrator.common.messages.jobs import Job, JobAnswer, JobError
from job_orchestrator.common.messages.payloads import ErrorPayload, Payload, PayloadEvent
from job_orchestrator.common.messages.service import Minute
from job_orchestrator.common.protocol.decoding import (
    MalformedMessage,
    decode_load_event,
    decode_payload,
    decode_payload_event,
)
from job_orchestrator.common.status import JobStatus, PayloadStatus

J, P = JobStatus, PayloadStatus

NUMBERS_BEYOND_64_BITS = ('"id":9223372036854775808', '"id":1,"exit_code":-9223372036854775809')


def test_payload_is_encoded_with_every_field_that_older_servers_require() -> None:
    assert json.loads(encode(Payload(7, P.PREPARED, loc="/x"))) == {
        "id": 7,
        "status": "Prepared",
        "input": {},
        "loc": "/x",
        "pid": 0,
        "killed": False,
        "exit_code": None,
        "message": "",
    }
    assert json.loads(encode(ErrorPayload("no")))["id"] == 0


def test_payload_of_an_older_client_is_decoded_with_any_input() -> None:
    old = b'{"id": 4294967295, "status": "Running", "input": {"run.sh": [35, 33]}, "loc": "/x"}'
    payload = decode_payload(old)
    assert (payload.id, payload.status, payload.exit_code) == (4294967295, P.RUNNING, None)
    assert decode_payload(b'{"id":1,"status":"Failed","pid":null,"more":[]}').pid is None


@pytest.mark.parametrize("numbers", NUMBERS_BEYOND_64_BITS)
def test_number_beyond_64_bits_is_a_malformed_message(numbers: str) -> None:
    body = f'{{{numbers},"status":"Failed"}}'
    with pytest.raises(MalformedMessage):
        decode_payload(body.encode())
    with pytest.raises(MalformedMessage):
        decode_payload_event(body)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"id":1,"status":"Lost"}', b"\xff"])
def test_body_of_another_form_is_a_malformed_message(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_payload(body)
    with pytest.raises(MalformedMessage):
        decode_load_event(body.decode("latin-1"))


def test_event_that_was_encoded_is_decoded_as_it_was() -> None:
    event = PayloadEvent(3, P.FAILED, 7, "why")
    assert decode_payload_event(encode(event).decode()) == event


def test_answer_about_a_job_has_its_three_fields_and_a_code_only_if_set() -> None:
    assert encode(JobAnswer(1, J.QUEUED, "m")) == b'{"id":1,"status":"Queued","message":"m"}'
    assert encode(JobError(0, J.UNKNOWN, "m")) == b'{"id":0,"status":"Unknown","message":"m"}'
    assert encode(JobError(0, J.UNKNOWN, "m", "c")).endswith(b'"message":"m","code":"c"}')


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1790000000.12, "2026-09-21T14:13:20.120Z"),
        (1790000000.9999, "2026-09-21T14:13:20.999Z"),
    ],
)
def test_time_is_encoded_in_utc_with_milliseconds(seconds: float, text: str) -> None:
    assert encode(Minute(at=WireTime.at(seconds))).startswith(b'{"at":"%b",' % text.encode())


def test_time_that_was_encoded_is_decoded_as_aware_utc() -> None:
    minute = msgspec.json.decode(encode(Minute(at=WireTime.at(60.5))), type=Minute)
    assert minute.at == datetime(1970, 1, 1, 0, 1, 0, 500_000, tzinfo=UTC)
    assert minute.at.tzinfo is UTC


def test_time_with_another_offset_is_decoded_as_the_same_moment() -> None:
    minute = msgspec.json.decode(b'{"at":"1970-01-01T02:00:00+02:00"}', type=Minute)
    assert minute.at == datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))


def test_job_of_an_older_server_is_decoded_with_defaults_for_missing_fields() -> None:
    body = (
        b'{"id":1,"user_id":2,"service":"s","status":"Queued",'
        b'"created_at":"2026-01-01T00:00:00.000Z","of_a_later_version":[1]}'
    )
    job = msgspec.json.decode(body, type=Job)
    assert (job.name, job.priority, job.started_at, job.has_output) == ("", 0, None, False)
    assert not job.has_ended
