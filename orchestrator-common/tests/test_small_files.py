"""The files of a small job, encoded and decoded."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.protocol.paths import UnsafePath
from job_orchestrator.common.protocol.small_files import (
    MAX_CONTENT_BYTES,
    MAX_FILES,
    InvalidSmallFiles,
    SmallFile,
    decode_files,
    encode_files,
)


@given(st.dictionaries(st.sampled_from(["run.sh", "a/b", "a/c", "ä ö"]), st.binary(max_size=50)))
def test_files_that_are_encoded_and_decoded_are_unchanged(contents: dict[str, bytes]) -> None:
    files = [SmallFile(name, content) for name, content in contents.items()]
    assert decode_files(encode_files(files)) == files


def test_encoded_files_are_pairs_of_name_and_bytes_in_msgpack() -> None:
    block = encode_files([SmallFile("run.sh", b"\xff")])
    assert msgspec.msgpack.decode(block) == [["run.sh", b"\xff"]]


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a//b", "a\\b", ".orchestrator/x"])
def test_an_unsafe_name_is_refused(name: str) -> None:
    with pytest.raises(UnsafePath):
        decode_files(encode_files([SmallFile(name, b"")]))


@pytest.mark.parametrize("pair", [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_names_that_cannot_exist_together_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(InvalidSmallFiles):
        decode_files(encode_files([SmallFile(name, b"") for name in pair]))


def test_more_files_than_the_bound_are_refused() -> None:
    files = [SmallFile(f"{number}", b"") for number in range(MAX_FILES + 1)]
    assert len(decode_files(encode_files(files[:-1]))) == MAX_FILES
    with pytest.raises(InvalidSmallFiles, match="257 files"):
        decode_files(encode_files(files))


def test_more_bytes_than_the_bound_are_refused() -> None:
    half = bytes(MAX_CONTENT_BYTES // 2)
    files = [SmallFile("a", half), SmallFile("b", half), SmallFile("c", b"x")]
    assert len(decode_files(encode_files(files[:-1]))) == 2
    with pytest.raises(InvalidSmallFiles, match="bytes, and may have"):
        decode_files(encode_files(files))


@pytest.mark.parametrize(
    "value", [None, {}, [1], [["a"]], [["a", b"", 1]], [["a", 1]], [["a", "text"]], [[b"a", b""]]]
)
def test_a_block_of_another_shape_is_refused(value: object) -> None:
    with pytest.raises(InvalidSmallFiles):
        decode_files(msgspec.msgpack.encode(value))


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_unless_they_are_files(block: bytes) -> None:
    try:
        files = decode_files(block)
    except BadRequest:
        files = []
    assert decode_files(encode_files(files)) == files


def test_name_that_is_not_utf_8_is_refused() -> None:
    block = encode_files([SmallFile("ab", b"x")]).replace(b"ab", b"\xff\xfe")
    with pytest.raises(InvalidSmallFiles):
        decode_files(block)
