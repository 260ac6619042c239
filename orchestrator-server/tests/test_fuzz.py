"""Whatever clients answer, and whatever happens to a job: foreseen errors, and rules that hold.

``FUZZ_EXAMPLES`` (``make fuzz``) says how many are tried.
"""

import asyncio
import contextlib
import dataclasses
import io
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from fake_client import zip_of
from job_orchestrator.common.protocol.multipart_writer import FormBody
from job_orchestrator.common.protocol.sse import StreamBroken
from job_orchestrator.common.status import (
    ACTIVE_JOB,
    FINAL_JOB,
    JOB_TRANSITIONS,
    JobStatus,
    TransitionRefused,
    origins,
)
from job_orchestrator.server.clients.http import HttpTransport
from job_orchestrator.server.errors import ClientError
from job_orchestrator.server.files.base import BrokenArchive
from job_orchestrator.server.files.folder import check_archive
from job_orchestrator.server.files.zip_reader import NotAZip, read_directory, read_entries
from job_orchestrator.server.model import ClientUrls, Job, JobOptions
from job_orchestrator.server.store.base import Offer, WaitingUser
from job_orchestrator.server.store.sqlite.jobs import JobStore
from job_orchestrator.server.store.sqlite.maintenance import (
    damage,
    opened,
    wrong_histories,
    wrong_usage,
)
from job_orchestrator.server.store.sqlite.opening import open_store
from sample_job import JOB

R = TypeVar("R")

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "50"))

# ---- what a client answers

HEADS = st.builds(
    lambda status, headers: (
        f"HTTP/1.1 {status} X\r\n".encode() + b"".join(headers) + b"Connection: close\r\n"
    ),
    st.sampled_from([200, 201, 204, 302, 400, 401, 404, 413, 500, 503, 507, 999]),
    st.lists(
        st.sampled_from(
            [
                b"Content-Type: application/json\r\n",
                b"Content-Type: application/zip\r\n",
                b"Content-Type: text/event-stream\r\n",
                b"Content-Type: ;;;\r\n",
                b"Content-Length: 3\r\n",
                b"Content-Length: 999\r\n",
                b"Content-Encoding: gzip\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Idempotency-Key: other\r\n",
                b"Idempotency-Key: k\r\n",
                b"Location: http://127.0.0.1:9/\r\n",
                b"Retry-After: soon\r\n",
            ]
        ),
        max_size=4,
        unique=True,
    ),
)
CONTENTS = st.sampled_from(
    [
        b"",
        b"{}",
        b'{"id": 1, "status": "Completed"}',
        b'{"id": -1, "status": "Dancing"}',
        b'{"id": 1, "status": "Failed", "input": {"a": [1, 2]}, "message": 5}',
        b"[" * 1000,
        b"PK\x03\x04",
        b"event: payload\ndata: {}\n\n",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"zz\r\nabc",
    ]
) | st.binary(max_size=100)
ANSWERS = st.builds(lambda head, body: head + b"\r\n" + body, HEADS, CONTENTS) | st.binary(
    max_size=60
)


class Sink:
    """Takes everything."""

    async def receive(self, blocks: AsyncIterator[bytes]) -> int:
        return sum([len(block) async for block in blocks])


async def follow(api: HttpTransport) -> None:
    async with api.events() as events:
        async for _ in events:
            pass


def calls(api: HttpTransport) -> list[Coroutine[Any, Any, Any]]:
    """Each call to a client once."""
    body = FormBody([])
    body.load_if_small()
    return [
        api.submit(body, "k"),
        api.retrieve(1, "k", Sink()),
        api.retrieve_partial(1, Sink()),
        api.kill(1),
        api.acknowledge([1, 2]),
        api.load(),
        follow(api),
    ]


@given(answer=ANSWERS)
@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_client_answers_is_an_answer_or_a_client_error(answer: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    async def ask_all() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        api = HttpTransport(ClientUrls(f"{url}/submit", f"{url}/retrieve", f"{url}/kill"))
        try:
            async with asyncio.timeout(30):
                for call in calls(api):
                    # What an event stream breaks with is a domain error like any other.
                    with contextlib.suppress(ClientError, StreamBroken):
                        await call
        finally:
            await api.close()
            server.close()

    asyncio.run(ask_all())


WHOLE = zip_of(a="1", b="2" * 50)


@given(
    st.binary(max_size=100)
    | st.builds(
        lambda at, patch: WHOLE[:at] + patch + WHOLE[at + len(patch) :],
        st.integers(0, len(WHOLE)),
        st.binary(min_size=1, max_size=8),
    )
    | st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end])
)
@settings(max_examples=2 * EXAMPLES, deadline=None)
@example(WHOLE)
def test_archive_is_whole_or_broken(content: bytes) -> None:
    try:
        check_archive(JOB, io.BytesIO(content))
    except BrokenArchive:
        return
    file = io.BytesIO(content)
    with contextlib.suppress(NotAZip):
        for entry in read_entries(file, read_directory(file)):
            assert entry.size >= 0


# ---- what happens to a job


class StoreMachine(RuleBasedStateMachine):
    """The store against a model: any order of what the server does, crashes of it included."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        # Each commit is flushed: in memory, that takes no time.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
        self._folder = tempfile.TemporaryDirectory(dir=memory)
        self._path = Path(self._folder.name) / "db.sqlite"
        self._exits = contextlib.AsyncExitStack()
        self._now = 1000.0
        self._status: dict[int, JobStatus] = {}
        self._told: dict[int, Job] = {}
        self._keys: dict[tuple[int, str], int] = {}
        self._uuids = 0
        self._store: JobStore

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        return self._loop.run_until_complete(work)

    @initialize()
    def start(self) -> None:
        """The first life of the server."""
        self._store = self._run(
            self._exits.enter_async_context(open_store(self._path, lambda: self._now))
        )
        self._store.subscribe(lambda job: self._told.update({job.id: job}))

    @rule()
    def restart(self) -> None:
        """Another life on the same file."""
        self._run(self._exits.aclose())
        self._exits = contextlib.AsyncExitStack()
        self.start()

    @rule(
        target=jobs,
        user=st.integers(1, 2),
        key=st.none() | st.sampled_from("kl"),
        url=st.none() | st.just("http://x/"),
    )
    def create(self, user: int, key: str | None, url: str | None) -> Any:
        """A new job, or the one that the key has."""
        self._uuids += 1
        options = JobOptions(idempotency_key=key, callback_url=url)
        uuid = f"u{self._uuids}"
        job = self._run(self._store.create(uuid, user, "s", options, input_bytes=10))
        if job.uuid != uuid:
            assert self._keys[user, key or ""] == job.id
            assert self._status[job.id] is not JobStatus.CLEANED
            return multiple()
        if key is not None:
            known = self._keys.get((user, key))
            assert known is None or self._status[known] is JobStatus.CLEANED
            self._keys[user, key] = job.id
        self._status[job.id] = JobStatus.QUEUED
        return job.id

    @rule(slots=st.integers(1, 3))
    def claim(self, slots: int) -> None:
        """A pass of the sender."""

        def decide(active: int, waiting: Any) -> list[int]:
            assert active == sum(status in ACTIVE_JOB for status in self._status.values())
            users: list[WaitingUser] = list(waiting)
            return [user.user_id for user in users for _ in range(user.queued)]

        offers = {"s": Offer(1000, ["http://c/submit"] * slots, decide)}
        for claim in self._run(self._store.claim(offers)).values():
            for job in claim.jobs:
                assert self._status[job.id] is JobStatus.QUEUED
                self._status[job.id] = JobStatus.PROCESSING

    @rule(job_id=jobs, wanted=st.sampled_from(JobStatus), late=st.booleans(), output=st.booleans())
    def transition(self, job_id: int, wanted: JobStatus, late: bool, output: bool) -> None:
        """A transition, of an earlier attempt if ``late``."""
        job = self._run(self._store.get(job_id))
        before = self._status[job_id]
        if late:
            job = dataclasses.replace(job, attempt=job.attempt - 1)
        allowed = before in origins(wanted) and not late
        try:
            changed = self._run(
                self._store.transition(job, wanted, "why", output_bytes=5 if output else None)
            )
        except TransitionRefused as refused:
            assert (allowed, refused.current) == (False, before)  # noqa: PT017
        else:
            assert allowed
            assert changed.status is wanted
            self._status[job_id] = wanted

    @rule(job_id=jobs, counts=st.booleans(), may_still_run=st.booleans())
    def requeue(self, job_id: int, counts: bool, may_still_run: bool) -> None:
        """Its client lost it."""
        job = self._run(self._store.get(job_id))
        before = self._status[job_id]
        try:
            changed = self._run(
                self._store.requeue(
                    job,
                    "lost",
                    delay_s=0,
                    max_attempts=2,
                    counts=counts,
                    may_still_run=may_still_run,
                )
            )
        except TransitionRefused:
            assert before not in origins(JobStatus.QUEUED)
            return
        assert before in origins(JobStatus.QUEUED)
        expected = JobStatus.QUEUED
        if job.kill_requested:
            expected = JobStatus.KILLED
        elif counts and job.failures + 1 >= 2:
            expected = JobStatus.FAILED
        assert changed.status is expected
        self._status[job_id] = expected

    @rule(job_id=jobs)
    def request_kill(self, job_id: int) -> None:
        """A user wants it ended."""
        job = self._run(self._store.request_kill(job_id))
        assert job.status is self._status[job_id]
        if job.status in origins(JobStatus.KILLED):
            assert job.kill_requested

    @rule()
    def client_lost(self) -> None:
        """The client can't be reached."""
        for job in self._run(self._store.client_lost("http://c/submit", "gone")):
            assert self._status[job.id] in origins(JobStatus.UNKNOWN)
            self._status[job.id] = JobStatus.UNKNOWN

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        """Time passes."""
        self._now += seconds

    @invariant()
    def store_and_model_agree(self) -> None:
        """And so do what listeners were told, the history, the counters and the outbox."""
        for job_id, status in self._status.items():
            job = self._run(self._store.get(job_id))
            assert job.status is status
            ended = status in FINAL_JOB or status is JobStatus.CLEANED
            assert (job.ended_at is not None) is ended
            assert job_id not in self._told or self._told[job_id].status is status
        if self._status:
            self._look_at_the_file()

    def _look_at_the_file(self) -> None:
        with opened(self._path) as connection:
            assert wrong_usage(connection) == []
            assert wrong_histories(connection) == []
            rows = connection.execute("SELECT from_status, to_status FROM job_events").fetchall()
            for before, after in rows:
                if before is None:
                    assert after == JobStatus.QUEUED
                else:
                    assert JobStatus(after) in JOB_TRANSITIONS[JobStatus(before)]
            told = {job_id for (job_id,) in connection.execute("SELECT job_id FROM callbacks")}
            due = connection.execute(
                "SELECT id FROM jobs WHERE callback_url IS NOT NULL AND ended_at IS NOT NULL"
            )
            assert told == {job_id for (job_id,) in due}

    def teardown(self) -> None:
        """The end."""
        self._run(self._exits.aclose())
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            assert damage(connection) == []
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._folder.cleanup()


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=max(EXAMPLES // 5, 1),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
