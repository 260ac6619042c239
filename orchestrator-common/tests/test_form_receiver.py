"""Forms: sent with ``FormBody``, received with ``receive_form``, with all limits."""

import asyncio
import os
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from io import BytesIO
from itertools import cycle, pairwise
from pathlib import Path, PurePosixPath

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from job_orchestrator.common.errors import BadRequest, StorageFull, TooLarge
from job_orchestrator.common.protocol.multipart_reader import MultipartError
from job_orchestrator.common.protocol.multipart_writer import FormBody, FormFile
from job_orchestrator.common.protocol.paths import UnsafePath
from job_orchestrator.common.protocol.small_files import MAX_FILES, SmallFile
from job_orchestrator.common.storage.form_receiver import BodyTimeout, receive_form
from job_orchestrator.common.storage.form_writer import FormLimits, ReceivedForm

CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/\\")
ESCAPES = st.sampled_from(["%22", "%0a", "%0D", "%"])
NAME = (
    st.lists(st.one_of(CHARACTERS, CHARACTERS, CHARACTERS, ESCAPES), min_size=1, max_size=20)
    .map("".join)
    .filter(lambda name: name not in (".", "..", ".orchestrator"))
)
FIELD_NAME = NAME.filter(lambda name: "%" not in name)
PATH = st.lists(NAME, min_size=1, max_size=3).map("/".join)


class Stream:
    """A body that arrives in pieces, and then ends or stalls."""

    def __init__(
        self, pieces: list[bytes], *, stalls: bool = False, knows_its_end: bool = False
    ) -> None:
        self._knows_its_end = knows_its_end
        self._pieces = [piece for piece in pieces if piece]
        self._stalls = stalls

    async def readany(self) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        if self._stalls:
            await asyncio.Event().wait()
        return b""

    def is_eof(self) -> bool:
        return self.at_eof()

    def at_eof(self) -> bool:
        return self._knows_its_end and not self._pieces


def pieces_of(body: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[a:b] for a, b in pairwise(places)]


SMALL_BYTES = 300

Receive = Callable[..., Awaitable[ReceivedForm]]


async def receive(
    body: bytes,
    content_type: str,
    folder: Path,
    *,
    cuts: list[int] | None = None,
    small_bytes: int = 0,
    **limits: float,
) -> ReceivedForm:
    given_limits = FormLimits(**{"max_bytes": 1 << 20, **limits})  # type: ignore[arg-type]
    stream = Stream(pieces_of(body, cuts or []))
    return await receive_form(
        stream,
        content_type,
        lambda: folder,
        given_limits,
        lambda form: form,
        small_bytes=small_bytes,
    )


@pytest.fixture(params=[0, SMALL_BYTES], ids=["to a folder", "to memory if small"])
def receiving(request: pytest.FixtureRequest) -> Receive:
    """Receive with and without small forms: each limit and each refusal holds for both."""
    return partial(receive, small_bytes=request.param)


async def body_of(form: FormBody) -> bytes:
    return b"".join([block async for block in form])


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@given(
    files=st.dictionaries(PATH, st.binary(max_size=200), max_size=4),
    fields=st.dictionaries(
        FIELD_NAME, st.text(st.characters(codec="utf-8"), max_size=20), max_size=3
    ),
    cuts=st.lists(st.integers(0, 3000), max_size=6),
    small_bytes=st.sampled_from([0, SMALL_BYTES]),
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_form_with_any_names_arrives_unchanged_however_it_is_cut(
    files: dict[str, bytes],
    fields: dict[str, str],
    cuts: list[int],
    small_bytes: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    parents = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    files = {path: data for path, data in files.items() if path not in parents}
    source = tmp_path_factory.mktemp("source")
    target = source.with_name(f"{source.name}-target")
    parts: list[FormFile] = []
    sources: list[Callable[[str, bytes], FormFile]] = [
        lambda path, data: FormFile(path, written(source / str(len(parts)), data), len(data)),
        lambda path, data: FormFile(path, data, len(data)),
        lambda path, data: FormFile(path, BytesIO(b"before" + data), len(data), len("before")),
    ]
    for make, (path, data) in zip(cycle(sources), files.items(), strict=False):
        parts.append(make(path, data))

    async def there_and_back() -> ReceivedForm:
        form = FormBody(parts, fields.items())
        body = await body_of(form)
        assert form.headers["Content-Length"] == str(len(body))
        assert await body_of(form) == body, "a retry sends the same body"
        return await receive(
            body, form.headers["Content-Type"], target, cuts=cuts, small_bytes=small_bytes
        )

    received = asyncio.run(there_and_back())
    assert received.files == {path: len(data) for path, data in files.items()}
    assert received.fields == {name: [value] for name, value in fields.items()}
    found = {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    if not small_bytes or sum(map(len, files.values())) > small_bytes:
        assert (received.small, found) == (None, files)
    else:
        assert received.small == [SmallFile(path, data) for path, data in sorted(files.items())]
        assert not target.exists(), "nothing is written"


async def test_names_quoted_by_aiohttp_curl_and_browsers_arrive_unchanged(
    tmp_path: Path,
) -> None:
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("file", b"1", filename='we"ird ü.txt')
    writer = _Collected()
    payload = form()
    await payload.write(writer)  # type: ignore[arg-type]
    received = await receive(bytes(writer.body), payload.content_type, tmp_path)
    assert list(received.files) == ['we"ird ü.txt']


class _Collected:
    def __init__(self) -> None:
        self.body = bytearray()

    async def write(self, chunk: bytes) -> None:
        self.body += chunk


HEAD = b'--b\r\nContent-Disposition: form-data; name="f"; filename="%b"\r\n\r\n'
TYPE = "multipart/form-data; boundary=b"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", MultipartError),
        (HEAD % b"x" + b"data", MultipartError),
        (b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n", MultipartError),
        (HEAD % b"\xff" + b"x\r\n--b--\r\n", MultipartError),
        (HEAD % b"../x" + b"x\r\n--b--\r\n", UnsafePath),
        (HEAD % b"x" + b"1\r\n" + HEAD % b"x" + b"2\r\n--b--\r\n", BadRequest),
        (HEAD % b"x" + b"1\r\n" + HEAD % b"x/y" + b"2\r\n--b--\r\n", BadRequest),
        (HEAD % b"x/y" + b"1\r\n" + HEAD % b"x" + b"2\r\n--b--\r\n", BadRequest),
        (HEAD % b"x" + b"1" * 100 + b"\r\n--b--\r\n", TooLarge),
    ],
)
async def test_bad_body_is_refused(
    receiving: Receive, tmp_path: Path, body: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await receiving(body, TYPE, tmp_path, max_bytes=50)


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ('filename="q%22.txt"', 'q".txt'),
        ('filename="100%.txt"', "100%.txt"),
        ("filename*=UTF-8''caf%C3%A9.txt", "café.txt"),
        ("FileName* = utf-8'fr'data%2Fcaf%C3%A9.txt", "data/café.txt"),
        ("filename*=\"iso-8859-1''caf%E9.txt\"", "café.txt"),
        ("filename=\"=?utf-8?B?Y2Fmw6kudHh0?=\"; filename*=utf-8''caf%C3%A9.txt", "café.txt"),
        ("filename*=UTF-8''per%2522cent", "per%22cent"),
        ('filename="a*b; filename*=c"', "a*b; filename*=c"),
    ],
)
async def test_file_name_in_any_notation_is_accepted(
    tmp_path: Path, parameters: str, path: str
) -> None:
    head = f'--b\r\nContent-Disposition: form-data; name="f"; {parameters}\r\n\r\n'
    received = await receive(head.encode() + b"x\r\n--b--\r\n", TYPE, tmp_path)
    assert list(received.files) == [path]


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ("filename*0=caf; filename*1=e.txt", MultipartError),
        ("filename*=UTF-8''caf%E9.txt", MultipartError),
        ("filename*=UTF-7''x", MultipartError),
        ("filename*=caf%C3%A9.txt", MultipartError),
        ("filename*=UTF-8''..%2Fx", UnsafePath),
        ("filename=\"x\"; filename*=UTF-8''a%00", UnsafePath),
    ],
)
async def test_file_name_that_can_not_be_parsed_is_an_error(
    tmp_path: Path, parameters: str, error: type[Exception]
) -> None:
    head = f'--b\r\nContent-Disposition: form-data; name="f"; {parameters}\r\n\r\n'
    with pytest.raises(error):
        await receive(head.encode() + b"x\r\n--b--\r\n", TYPE, tmp_path)


async def test_longest_path_with_escapes_arrives_unchanged(tmp_path: Path) -> None:
    component = "%22" * 80 + '"' * 15
    path = "/".join([component] * 4)
    form = FormBody([FormFile(path, b"x", 1)])
    received = await receive(await body_of(form), form.headers["Content-Type"], tmp_path)
    assert list(received.files) == [path]


async def test_too_many_files_and_too_long_fields_are_refused(
    receiving: Receive, tmp_path: Path
) -> None:
    files = b"".join(HEAD % b"%d" % n + b"x\r\n" for n in range(3)) + b"--b--\r\n"
    with pytest.raises(TooLarge, match="More than 2 files"):
        await receiving(files, TYPE, tmp_path, max_files=2)
    field = b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n%b\r\n--b--\r\n'
    with pytest.raises(TooLarge, match="Field 'f' is larger"):
        await receiving(field % (b"x" * 70_000), TYPE, tmp_path)


async def test_too_many_folders_of_few_files_are_refused(
    receiving: Receive, tmp_path: Path
) -> None:
    body = HEAD % b"a/b/x" + b"1\r\n" + HEAD % b"a/b/c/d/x" + b"2\r\n--b--\r\n"
    await receiving(body, TYPE, tmp_path / "enough", max_folders=4)
    with pytest.raises(TooLarge, match="More than 3 folders"):
        await receiving(body, TYPE, tmp_path / "too many", max_folders=3)


async def test_repeated_field_counts_each_time(receiving: Receive, tmp_path: Path) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n1\r\n'
    with pytest.raises(TooLarge, match="More than 100 fields"):
        await receiving(field * 101 + b"--b--\r\n", TYPE, tmp_path)


async def test_bytes_after_the_end_of_a_body_are_limited(
    receiving: Receive, tmp_path: Path
) -> None:
    body = HEAD % b"x" + b"1\r\n--b--\r\n"
    await receiving(
        body + b"x" * 900, TYPE, tmp_path / "some", max_bytes=10, max_overhead_bytes=1000
    )
    with pytest.raises(TooLarge, match="File too large"):
        await receiving(
            body + b"x" * 2000, TYPE, tmp_path / "more", max_bytes=10, max_overhead_bytes=1000
        )


@pytest.mark.parametrize("knows_its_end", [False, True])
@pytest.mark.parametrize("size", [10, 2000])
async def test_end_of_a_body_is_found_whether_it_is_known_in_advance_or_not(
    tmp_path: Path, size: int, knows_its_end: bool
) -> None:
    body = HEAD % b"x" + b"1" * size + b"\r\n--b--\r\n"
    stream = Stream([body[:50], body[50:]], stalls=knows_its_end, knows_its_end=knows_its_end)
    limits = FormLimits(1 << 20)
    form = await receive_form(
        stream, TYPE, lambda: tmp_path, limits, lambda form: form, small_bytes=SMALL_BYTES
    )
    assert form.files == {"x": size}


async def test_form_of_small_files_is_completed_in_the_event_loop_others_in_a_thread(
    tmp_path: Path,
) -> None:
    async def completing_thread(size: int) -> int:
        body = HEAD % b"x" + b"1" * size + b"\r\n--b--\r\n"
        return await receive_form(
            Stream([body]),
            TYPE,
            lambda: tmp_path / str(size),
            FormLimits(1 << 20),
            lambda _: threading.get_ident(),
            small_bytes=SMALL_BYTES,
        )

    assert await completing_thread(SMALL_BYTES) == threading.get_ident()
    assert await completing_thread(SMALL_BYTES + 1) != threading.get_ident()
    assert (tmp_path / str(SMALL_BYTES + 1) / "x").exists()
    assert not (tmp_path / str(SMALL_BYTES)).exists()


async def test_more_files_than_one_block_may_hold_are_written_to_the_folder(
    tmp_path: Path,
) -> None:
    parts = [HEAD % b"%d" % number + b"\r\n" for number in range(MAX_FILES + 1)]
    many, few = b"".join([*parts, b"--b--\r\n"]), b"".join([*parts[1:], b"--b--\r\n"])
    received = await receive(many, TYPE, tmp_path / "many", small_bytes=SMALL_BYTES)
    assert received.small is None
    assert len(list((tmp_path / "many").iterdir())) == MAX_FILES + 1
    received = await receive(few, TYPE, tmp_path / "few", small_bytes=SMALL_BYTES)
    assert len(received.small or ()) == MAX_FILES


async def test_body_with_more_overhead_than_a_small_one_may_have_is_not_gathered_in_memory(
    tmp_path: Path,
) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n%b\r\n'
    fields = b"".join(field % (number, b"x" * 60_000) for number in range(3))
    body = fields + HEAD % b"x" + b"1\r\n--b--\r\n"
    received = await receive(body, TYPE, tmp_path, small_bytes=SMALL_BYTES)
    assert (received.small, received.files, len(received.fields)) == (None, {"x": 1}, 3)


async def test_sender_that_stalls_is_timed_out(tmp_path: Path) -> None:
    stream = Stream([HEAD % b"x" + b"data"], stalls=True)
    with pytest.raises(BodyTimeout, match=r"No data arrived for 0\.01 s"):
        await receive_form(
            stream, TYPE, lambda: tmp_path, FormLimits(100, idle_s=0.01), lambda form: form
        )


async def test_full_disk_is_storage_full(tmp_path: Path) -> None:
    big = HEAD % b"x" + b"1" * 100_000 + b"\r\n--b--\r\n"
    original = os.open

    # No file system here is full; the files of a form are the only ones created with O_EXCL.
    def open_full(path: str, flags: int, mode: int = 0o777) -> int:
        return original("/dev/full", os.O_WRONLY) if flags & os.O_EXCL else original(path, flags)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", open_full)
        with pytest.raises(StorageFull):
            await receive(big, TYPE, tmp_path)


async def test_trap_29_memory_stays_flat_whatever_the_size(tmp_path: Path) -> None:
    block = b"x" * (1 << 18)

    class Large(Stream):
        left = 400

        async def readany(self) -> bytes:
            self.left -= 1
            if self.left == 399:
                return HEAD % b"big"
            return block if self.left > 0 else (b"\r\n--b--\r\n" if self.left == 0 else b"")

    tracemalloc.start()
    try:
        limits = FormLimits(1 << 30)
        form = await receive_form(Large([]), TYPE, lambda: tmp_path, limits, lambda form: form)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert form.files["big"] == 398 * len(block)
    assert peak < 8 << 20


async def test_file_that_shrinks_during_sending_breaks_the_request(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12")
    for size in (3, 3 << 20):
        with pytest.raises(OSError, match="changed its size"):
            await body_of(FormBody([FormFile("x", tmp_path / "x", size)]))


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=b-_9",
        "multipart/form-data;boundary=b-_9",
        'multipart/form-data; boundary="b-_9"',
        "Multipart/Form-Data; charset=utf-8; BOUNDARY=b-_9",
    ],
)
async def test_boundary_is_found_however_the_header_is_written(
    content_type: str, tmp_path: Path
) -> None:
    body = (
        b'--b-_9\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\n1\r\n--b-_9--\r\n'
    )
    form = await receive(body, content_type, tmp_path / "form", small_bytes=SMALL_BYTES)
    assert form.files == {"x": 1}
