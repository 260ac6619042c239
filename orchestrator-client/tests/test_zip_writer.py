"""The writer of ZIP archives: other readers read what it writes, with ZIP64 and without."""

import hashlib
import io
import shutil
import subprocess
import tempfile
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from stat import S_IFDIR, S_IFREG

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from job_orchestrator.client.results.deflate import BLOCK_BYTES, ParallelDeflater
from job_orchestrator.client.results.zip_writer import Member, ZipWriter
from job_orchestrator.common.protocol.paths import parents

DEFLATER = ParallelDeflater()
NOON = 1_700_000_000.0
FIELDS = (
    *("filename", "create_version", "extract_version", "create_system", "flag_bits"),
    *("date_time", "external_attr", "internal_attr", "extra", "comment", "file_size", "CRC"),
)

COMPONENT = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))
CONTENT = st.binary(max_size=300) | st.integers(0, 400_000).map(lambda size: b"text " * (size // 5))
TREES = st.dictionaries(
    st.lists(COMPONENT, min_size=1, max_size=3).map("/".join), CONTENT, max_size=8
).map(lambda tree: {name: data for name, data in tree.items() if not _is_folder(name, tree)})


def _is_folder(name: str, tree: dict[str, bytes]) -> bool:
    return any(name in parents(other) for other in tree)


class Pipe(io.BytesIO):
    """A file in which nobody can go back."""

    def tell(self) -> int:
        raise io.UnsupportedOperation("a pipe has no position")


def file_member(name: str) -> Member:
    return Member(name, S_IFREG | 0o640, NOON)


def blocks_of(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


def write_tree(
    file: io.BytesIO,
    tree: dict[str, bytes],
    *,
    block_bytes: int = 0,
    zip64_from: int = 1 << 31,
    max_plain_entries: int = 0xFFFF,
) -> None:
    """Write all files of a tree, in blocks of ``block_bytes``; 0: each with a single write."""
    writer = ZipWriter(file, DEFLATER, zip64_from=zip64_from, max_plain_entries=max_plain_entries)
    for name, content in tree.items():
        if block_bytes:
            blocks = blocks_of(content, block_bytes)
            writer.write_blocks(file_member(name), blocks, max_size=len(content))
        else:
            writer.write(file_member(name), content)
    writer.close()
    assert file.tell() <= writer.size


def header_fields(file: io.BytesIO) -> list[dict[str, object]]:
    with zipfile.ZipFile(file) as archive:
        return [{key: getattr(entry, key) for key in FIELDS} for entry in archive.infolist()]


def check_readable(file: io.BytesIO, tree: dict[str, bytes]) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(file)
    assert archive.testzip() is None
    assert {name: archive.read(name) for name in archive.namelist()} == tree
    return archive


@settings(max_examples=60, deadline=None)
@given(
    tree=TREES,
    block_bytes=st.sampled_from((0, 100, 5000)),
    zip64_from=st.sampled_from((0, 1, 60, 500, 1 << 31)),
    max_plain_entries=st.sampled_from((0, 2, 0xFFFF)),
)
def test_any_tree_is_read_by_zipfile(
    tree: dict[str, bytes], block_bytes: int, zip64_from: int, max_plain_entries: int
) -> None:
    file = io.BytesIO()
    write_tree(
        file,
        tree,
        block_bytes=block_bytes,
        zip64_from=zip64_from,
        max_plain_entries=max_plain_entries,
    )

    check_readable(file, tree)


@pytest.mark.skipif(shutil.which("unzip") is None, reason="unzip is not installed")
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    # unzip changes names with control characters, backslashes and wildcards on purpose.
    tree=st.dictionaries(
        st.from_regex(r"[a-zé][a-z0-9é_.-]{0,9}(/x[a-z0-9 é]{0,9})?", fullmatch=True),
        CONTENT,
        min_size=1,
        max_size=5,
    ).map(lambda tree: {name: data for name, data in tree.items() if not _is_folder(name, tree)}),
    block_bytes=st.sampled_from((0, 5000)),
    zip64=st.booleans(),
)
def test_any_tree_is_extracted_by_unzip(
    tree: dict[str, bytes], block_bytes: int, zip64: bool
) -> None:
    file = io.BytesIO()
    limits = {"zip64_from": 1, "max_plain_entries": 0} if zip64 else {}
    write_tree(file, tree, block_bytes=block_bytes, **limits)

    with tempfile.TemporaryDirectory() as folder:
        (archive := Path(folder, "a.zip")).write_bytes(file.getvalue())
        environment = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
        command = ["unzip", "-q", str(archive), "-d", f"{folder}/out"]
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
        out = Path(folder, "out")
        found = {
            str(path.relative_to(out)): path.read_bytes()
            for path in out.rglob("*")
            if path.is_file()
        }
    assert (done.returncode, done.stderr) == (0, b"")
    assert found == tree


@pytest.mark.parametrize("block_bytes", [0, 1000])
@pytest.mark.parametrize("content", [b"", b"x", b"text " * 5000], ids=["empty", "tiny", "text"])
def test_member_has_the_header_fields_that_zipfile_writes(content: bytes, block_bytes: int) -> None:
    ours, theirs = io.BytesIO(), Pipe() if block_bytes else io.BytesIO()
    names = ("plain", "folder/é")
    write_tree(ours, dict.fromkeys(names, content), block_bytes=block_bytes)
    with zipfile.ZipFile(theirs, "w") as expected:
        for name in names:
            info = zipfile.ZipInfo(name, time.localtime(NOON)[:6])
            info.external_attr = file_member(name).mode << 16
            expected.writestr(info, content)

    assert header_fields(ours) == header_fields(io.BytesIO(theirs.getvalue()))


@pytest.mark.parametrize("block_bytes", [0, 1000])
def test_digest_is_that_of_the_written_bytes(block_bytes: int) -> None:
    file = io.BytesIO()
    writer = ZipWriter(file, DEFLATER)
    content = b"text " * 5000
    if block_bytes:
        writer.write_blocks(file_member("a"), blocks_of(content, block_bytes), len(content))
    else:
        writer.write(file_member("a"), content)
    writer.close()

    assert writer.sha256 == hashlib.sha256(file.getvalue()).digest()


def test_archive_of_stored_members_equals_that_of_zipfile() -> None:
    ours, theirs = io.BytesIO(), io.BytesIO()
    writer = ZipWriter(ours, DEFLATER)
    writer.write(Member("folder/", S_IFDIR | 0o755, NOON), b"")
    writer.write(file_member("é"), b"x")
    writer.close()

    with zipfile.ZipFile(theirs, "w") as expected:
        for name, mode, content in (
            ("folder/", S_IFDIR | 0o755, b""),
            ("é", S_IFREG | 0o640, b"x"),
        ):
            info = zipfile.ZipInfo(name, time.localtime(NOON)[:6])
            info.external_attr = mode << 16 | (0x10 if name == "folder/" else 0)
            expected.writestr(info, content)
    assert zipfile.ZipFile(ours).infolist()[0].is_dir()
    assert ours.getvalue() == theirs.getvalue()


@pytest.mark.parametrize(
    ("zip64_from", "max_plain_entries", "extract_version", "has_end64"),
    [(1 << 31, 0xFFFF, 20, False), (1 << 31, 1, 20, True), (10, 0xFFFF, 45, True)],
    ids=["plain", "many entries", "large"],
)
def test_zip64_is_used_only_beyond_the_limits(
    zip64_from: int, max_plain_entries: int, extract_version: int, has_end64: bool
) -> None:
    tree = {"a": b"text " * 100, "b": b"text " * 100}
    file = io.BytesIO()
    write_tree(
        file, tree, block_bytes=50, zip64_from=zip64_from, max_plain_entries=max_plain_entries
    )

    archive = check_readable(file, tree)
    assert {entry.extract_version for entry in archive.infolist()} == {extract_version}
    assert (b"PK\x06\x06" in file.getvalue()) is has_end64
    assert (b"PK\x06\x07" in file.getvalue()) is has_end64


def test_member_smaller_than_announced_is_whole() -> None:
    """A file may shrink between its size is read and its end."""
    file = io.BytesIO()
    writer = ZipWriter(file, DEFLATER, zip64_from=100)
    writer.write_blocks(file_member("shrunk"), iter([b"text"]), max_size=1000)
    writer.write(file_member("after"), b"x")
    writer.close()

    check_readable(file, {"shrunk": b"text", "after": b"x"})


def test_write_blocks_stops_when_the_check_after_a_part_raises() -> None:
    file = io.BytesIO()
    writer = ZipWriter(file, DEFLATER)
    sizes: list[int] = []

    def check() -> None:
        sizes.append(writer.size)
        if len(sizes) == 2:
            raise OverflowError

    endless = iter(lambda: b"text " * 1000, b"")
    with pytest.raises(OverflowError):
        writer.write_blocks(file_member("endless"), endless, BLOCK_BYTES, check)
    assert sizes == sorted(set(sizes))


def test_name_that_is_not_unicode_is_an_error_and_writes_nothing() -> None:
    file = io.BytesIO()
    writer = ZipWriter(file, DEFLATER)

    with pytest.raises(UnicodeEncodeError):
        writer.write(file_member("bad\udcff"), b"x")
    assert file.getvalue() == b""


def test_memory_for_an_entry_is_that_of_its_directory_record() -> None:
    entries, name_bytes = 20_000, 30
    writer = ZipWriter(io.BytesIO(), DEFLATER)
    tracemalloc.start()
    try:
        for number in range(entries):
            writer.write(file_member(f"{number:0{name_bytes}}"), b"")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The local headers in the file take as much, and growing buffers have spare room.
    assert peak < 4 * entries * (46 + name_bytes)
