"""Reader of ZIP files: it agrees with ``zipfile``, and needs constant memory."""

import io
import struct
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job_orchestrator.server.files.zip_reader import (
    EntryReader,
    NotAZip,
    read_directory,
    read_entries,
)

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\\"), min_size=1, max_size=20
).filter(lambda name: not name.startswith("/"))


def entries(content: bytes) -> list[tuple[str, int]]:
    file = io.BytesIO(content)
    return [(entry.path, entry.size) for entry in read_entries(file, read_directory(file))]


@given(
    files=st.dictionaries(NAMES, st.binary(max_size=50), max_size=5),
    # zipfile itself mistakes a signature in the comment for the end record.
    comment=st.binary(max_size=30).filter(lambda comment: b"PK" not in comment),
    large=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_read_entries_any_archive_agrees_with_zipfile(
    files: dict[str, bytes], comment: bytes, large: bool
) -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = comment
        for name, content in files.items():
            with archive.open(name, "w", force_zip64=large) as entry:
                entry.write(content)
    with zipfile.ZipFile(body) as archive:
        expected = [(info.filename, info.file_size) for info in archive.infolist()]
    assert entries(body.getvalue()) == expected


def test_read_entries_size_beyond_32_bits_is_read_from_the_zip64_field() -> None:
    extra = struct.pack("<2HQ", 9, 8, 1) + struct.pack("<2HQ", 1, 8, 5 * 2**32)
    entry = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, 0, 0xFFFFFFFF, 1, len(extra), 0, 0, 0, 0, 0
    )
    directory = entry + b"a" + extra
    end_64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert entries(directory + end_64 + locator + end) == [("a", 5 * 2**32)]


def test_trap_29_million_entries_cost_no_memory() -> None:
    name = b"file-000000"
    entry = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 1, len(name), 0, 0, 0, 0, 0, 0
    )
    directory = (entry + name) * 60_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 60_000, 60_000, len(directory), 0, 0)
    file = io.BytesIO(directory + end)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_entries(file, read_directory(file))) == 60_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300_000


@pytest.mark.parametrize("end", [1, 10, 22, 60])
def test_read_directory_file_is_cut_off_raises(end: int) -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("a", "x" * 100)
    whole = body.getvalue()
    assert entries(whole) == [("a", 100)]
    with pytest.raises(NotAZip):
        entries(whole[:-end])
    with pytest.raises(NotAZip):
        entries(whole[end:])


def content_of(archive: bytes, path: str, *, skip: int = 0) -> bytes:
    file = io.BytesIO(archive)
    found = next(each for each in read_entries(file, read_directory(file)) if each.path == path)
    content = EntryReader(file, found)
    content.skip(skip)
    return b"".join(iter(lambda: content.read(1000), b""))


@given(
    before=st.binary(max_size=100),
    content=st.one_of(st.binary(max_size=3000), st.integers(0, 100_000).map(lambda n: b"ab" * n)),
    skip=st.integers(0, 4000),
    method=st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)),
    large=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_entry_reader_any_archive_returns_the_content(
    before: bytes, content: bytes, skip: int, method: int, large: bool
) -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", method) as archive:
        archive.writestr("other", before)
        with archive.open("wanted", "w", force_zip64=large) as entry:
            entry.write(content)
    assert content_of(body.getvalue(), "wanted", skip=skip) == content[skip:]
    assert content_of(body.getvalue(), "other") == before


def test_entry_reader_corrupt_entry_raises() -> None:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"content" * 100)
    good = body.getvalue()
    directory = good.index(b"PK\1\2")

    def corrupted(at: int, instead: bytes) -> bytes:
        return good[:at] + instead + good[at + len(instead) :]

    for bad in (
        corrupted(0, b"XX"),
        corrupted(31, b"\xff" * 10),
        corrupted(directory + 8, b"\1"),
        corrupted(directory + 10, b"\x63"),
        corrupted(directory + 20, b"\1\0"),
        corrupted(directory + 42, b"\xff\xff\xff\xf0"),
    ):
        with pytest.raises(NotAZip):
            content_of(bad, "a")
