"""States, transitions, and the messages on the wire."""

import json

import pytest

from job_orchestrator.common.messages import (
    ErrorPayload,
    JobAnswer,
    MalformedMessage,
    Payload,
    PayloadEvent,
    decode_load_event,
    decode_payload,
    decode_payload_event,
    encode,
)
from job_orchestrator.common.status import (
    ACTIVE_JOB,
    FINAL_JOB,
    JOB_TRANSITIONS,
    JobStatus,
    PayloadStatus,
    TransitionRefused,
    check_transition,
    may_become,
    origins,
)

J, P = JobStatus, PayloadStatus


def test_final_job_may_only_be_cleaned_and_cleaned_is_the_end() -> None:
    for status in FINAL_JOB:
        assert JOB_TRANSITIONS[status] == {J.CLEANED}
    assert JOB_TRANSITIONS[J.CLEANED] == set()


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    assert set(JOB_TRANSITIONS) == set(J)
    for status in J:
        assert status is J.QUEUED or origins(status)


def test_active_jobs_are_those_between_queue_and_end() -> None:
    assert set(J) - FINAL_JOB - {J.QUEUED, J.CLEANED} == ACTIVE_JOB


def test_origins_of_a_job_and_of_a_payload_are_not_mixed_up() -> None:
    """Their states are strings, which are equal where they have one name."""
    assert origins(J.KILLED) >= {J.QUEUED, J.SUBMITTED}
    assert origins(P.KILLED) == {P.PREPARED, P.RUNNING}


def test_refused_transition_names_what_and_both_states() -> None:
    check_transition("Job 1", J.QUEUED, J.PROCESSING)
    with pytest.raises(TransitionRefused, match="Job 1 is Completed and can't become Running"):
        check_transition("Job 1", J.COMPLETED, J.RUNNING)
    assert not may_become(P.KILLED, P.RUNNING)


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


def test_payload_of_an_older_client_is_read_whatever_its_input() -> None:
    old = b'{"id": 4294967295, "status": "Running", "input": {"run.sh": [35, 33]}, "loc": "/x"}'
    payload = decode_payload(old)
    assert (payload.id, payload.status, payload.exit_code) == (4294967295, P.RUNNING, None)
    assert decode_payload(b'{"id":1,"status":"Failed","pid":null,"more":[]}').pid is None


def test_number_that_no_database_keeps_is_a_malformed_message() -> None:
    for numbers in ('"id":9223372036854775808', '"id":1,"exit_code":-9223372036854775809'):
        body = f'{{{numbers},"status":"Failed"}}'
        with pytest.raises(MalformedMessage):
            decode_payload(body.encode())
        with pytest.raises(MalformedMessage):
            decode_payload_event(body)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"id":1,"status":"Lost"}', b"\xff"])
def test_nonsense_is_a_malformed_message(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_payload(body)
    with pytest.raises(MalformedMessage):
        decode_load_event(body.decode("latin-1"))


def test_events_are_read_as_they_are_written() -> None:
    event = PayloadEvent(3, P.FAILED, 7, "why")
    assert decode_payload_event(encode(event).decode()) == event
    assert json.loads(encode(JobAnswer(1, J.QUEUED, "m"))) == {
        "id": 1,
        "status": "Queued",
        "message": "m",
    }
