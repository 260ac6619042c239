"""Fuzzing: any input of peers and administrators gives a value or the documented error.

``FUZZ_EXAMPLES`` is the number of examples (``make fuzz``).
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from job_orchestrator.common.config.kinds import (
    Duration,
    FilePath,
    Integer,
    Kind,
    Secret,
    Size,
    Switch,
    Urls,
    one_of,
)
from job_orchestrator.common.config.reader import SettingError, SettingsReader
from job_orchestrator.common.config.settings import Setting, no_default
from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.protocol.bearer import bearer_token, tokens_equal
from job_orchestrator.common.protocol.decoding import (
    MalformedMessage,
    decode_load_event,
    decode_payload,
    decode_payload_event,
)
from job_orchestrator.common.protocol.multipart_reader import MultipartReader, read_whole
from job_orchestrator.common.protocol.sse import MAX_EVENT_BYTES, StreamBroken, read_events
from job_orchestrator.common.storage.form_receiver import receive_form
from job_orchestrator.common.storage.form_writer import FormLimits, ReceivedForm

TYPE = "multipart/form-data; boundary=x"
FUZZ = settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "50")), deadline=None)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)

NAMES = st.sampled_from(
    ["run.sh", "a", "a/b", "../a", "/etc/passwd", "a\0b", ".", "..", "a//b", ".orchestrator/x", "é"]
) | st.text(max_size=12)
DISPOSITIONS = st.builds(
    lambda kind, name, filename, end: f'{kind}; name="{name}"; filename="{filename}"{end}'.encode(
        "utf-8", "surrogatepass"
    ),
    st.sampled_from(["form-data", "attachment", ""]),
    NAMES,
    NAMES,
    st.sampled_from(["", ";", "; filename*=UTF-8''x", '; name="other"', '"']),
)
PIECES = st.one_of(
    DISPOSITIONS.map(lambda text: b"Content-Disposition: " + text + b"\r\n"),
    st.sampled_from(
        [
            b"--x\r\n",
            b"--x--\r\n",
            b"--x--",
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"--",
            b"Content-Type: text/plain\r\n",
            b"Content-Disposition: form-data\r\n",
            b'Content-Disposition: form-data; name="user_id"\r\n\r\n1\r\n',
        ]
    ),
    st.binary(max_size=30),
)
BODIES = st.lists(PIECES, max_size=12).map(b"".join)
TYPES = st.sampled_from(
    ["multipart/form-data; boundary=x"] * 6
    + ["multipart/form-data", "text/plain", "", "multipart/form-data; boundary=" + "y" * 300]
) | st.text(max_size=30)


class Cut:
    """A stream that gives a body in pieces."""

    def __init__(self, body: bytes, size: int) -> None:
        self._pieces = [body[at : at + size] for at in range(0, len(body), size)]

    async def readany(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def is_eof(self) -> bool:
        return self.at_eof()

    def at_eof(self) -> bool:
        return not self._pieces


@given(body=BODIES, content_type=TYPES, size=st.integers(1, 50), small=st.sampled_from([0, 50]))
@example(body=b"", content_type="multipart/form-data; boundary=\u0100", size=1, small=0)
@example(body=b"", content_type="\udcff", size=1, small=50)
@FUZZ
def test_any_body_is_received_or_refused_and_stays_in_its_folder(
    body: bytes, content_type: str, size: int, small: int
) -> None:
    with tempfile.TemporaryDirectory() as top:
        _receive(Path(top), body, content_type, size, small)


def _receive(top: Path, body: bytes, content_type: str, size: int, small: int) -> None:
    folder = top / "job" / "input"
    limits = FormLimits(max_bytes=100, max_files=3)

    def complete(form: ReceivedForm) -> ReceivedForm:
        return form

    async def receive() -> ReceivedForm | None:
        try:
            return await receive_form(
                Cut(body, size), content_type, lambda: folder, limits, complete, small_bytes=small
            )
        except BadRequest:
            return None

    form = asyncio.run(receive())
    outside = [path for path in top.rglob("*") if not str(path).startswith(str(folder))]
    assert outside in ([], [top / "job"])
    if form is not None:
        found = {
            str(path.relative_to(folder)): path.stat().st_size
            for path in folder.rglob("*")
            if path.is_file()
        }
        in_memory = {file.name: len(file.content) for file in form.small or ()}
        assert found | in_memory == form.files
        assert not (found and in_memory)
        assert sum(form.files.values()) <= limits.max_bytes


@FUZZ
@given(
    st.lists(
        st.sampled_from([b"event: ", b"data: ", b"id: ", b"\n", b"\r\n", b"\n\n", b":", b"\xff"])
        | st.binary(max_size=20),
        max_size=20,
    )
)
@example([b"data: " + b"x" * (MAX_EVENT_BYTES + 10)])
def test_any_stream_gives_events_or_is_broken(chunks: list[bytes]) -> None:
    async def read() -> None:
        async def arriving() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

        try:
            async for event in read_events(arriving()):
                assert len(event.data) <= MAX_EVENT_BYTES
                assert event.kind
        except StreamBroken:
            pass

    asyncio.run(read())


@FUZZ
@given(JSON | st.binary(max_size=60))
def test_any_message_is_decoded_or_malformed(value: object) -> None:
    body = value if isinstance(value, bytes) else msgspec.json.encode(value)
    text = body.decode("utf-8", "replace")
    for read in (
        lambda: decode_payload(body),
        lambda: decode_payload_event(text),
        lambda: decode_load_event(text),
    ):
        with contextlib.suppress(MalformedMessage):
            read()


@FUZZ
@given(st.text(max_size=40) | st.from_regex(r"-?\d{0,30}(\.\d{0,5})?\s?[a-zA-Z]{0,4}"))
@example("9" * 5000)
@example("1e400")
@example("~nobody-of-this-name/x")
@example("9" * 400 + "d")
def test_any_setting_is_read_or_refused_in_one_line(text: str) -> None:
    kinds: list[Kind[object]] = [
        Integer(0, 10),
        Duration(),
        Size(),
        one_of("a", "b"),
        Switch(),
        Urls(),
        Secret(),
        FilePath(),
    ]
    for kind in kinds:
        try:
            value = SettingsReader({"X": text}, {}).read(Setting("X", kind, no_default(None), ""))
        except SettingError as error:
            message = str(error)
            assert message.startswith("X ")
            assert "\n" not in message
        else:
            if isinstance(kind, Duration | Size) and value is not None:
                assert isinstance(value, int | float)
                assert 0 <= value < float("inf")
            if isinstance(kind, FilePath) and value is not None:
                assert isinstance(value, Path)
                assert value.is_absolute()


@FUZZ
@given(st.text(max_size=40) | st.text(max_size=20).map(lambda text: f"Bearer {text}"))
def test_any_header_gives_a_token_or_none(header: str) -> None:
    token = bearer_token(header)
    assert token is None or (token and header.strip().lower().startswith("bearer "))


@FUZZ
@given(st.text(st.characters(codec="utf-8"), max_size=20), st.binary(max_size=20))
def test_tokens_equal_compares_bytes(expected: str, raw: bytes) -> None:
    shown = raw.decode("utf-8", "surrogateescape")
    assert tokens_equal(shown, expected) is (raw == expected.encode())


class Recorded:
    """A sink that records what it gets."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, str, bytearray]] = []
        self.closed = 0

    def open_file(self, path: str) -> None:
        self.parts.append(("file", path, bytearray()))

    def open_field(self, name: str) -> None:
        self.parts.append(("field", name, bytearray()))

    def write(self, data: memoryview) -> None:
        self.parts[-1][2].extend(data)

    def close_part(self) -> None:
        self.closed += 1


def _outcome(parse: Callable[[Recorded], None]) -> object:
    sink = Recorded()
    try:
        parse(sink)
    except BadRequest as error:
        return type(error), str(error)
    return sink.parts, sink.closed


FORMS = st.lists(
    st.tuples(
        DISPOSITIONS, st.sampled_from(["", "\r\nContent-Type: text/x"]), st.binary(max_size=9)
    ),
    max_size=4,
).map(
    lambda parts: (
        b"".join(
            b"--x\r\nContent-Disposition: %b%b\r\n\r\n%b\r\n" % (head, kind.encode(), content)
            for head, kind, content in parts
        )
        + b"--x--\r\n"
    )
)


@given(body=FORMS | BODIES)
@example(body=b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\r\n--x--')
@example(body=b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n--xy\r\n--x--')
@example(body=b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n--x--\r\n')
@FUZZ
def test_whole_bodies_are_read_as_those_that_arrive_in_blocks(body: bytes) -> None:
    def read_in_blocks(sink: Recorded) -> None:
        reader = MultipartReader(TYPE, sink)
        reader.feed(body)
        reader.finish()

    assert _outcome(lambda sink: read_whole(TYPE, body, sink)) == _outcome(read_in_blocks)
