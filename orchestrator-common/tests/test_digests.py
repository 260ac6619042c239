"""Digests in the header ``Repr-Digest``, as RFC 9530 shows them."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.common.protocol.digests import MalformedDigest, repr_digest, sha256_of

# RFC 9530, B.1: the digest of {"hello": "world"} and a line feed.
EXAMPLE = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
CONTENT = b'{"hello": "world"}\n'
SHA256 = hashlib.sha256(CONTENT).digest()


def test_digest_is_written_as_the_standard_shows() -> None:
    assert repr_digest(SHA256) == EXAMPLE


@pytest.mark.parametrize(
    "header",
    [
        EXAMPLE,
        f"  {EXAMPLE} ",
        f"sha-512=:AAAA:, {EXAMPLE}",
        f"{EXAMPLE},unixsum=30637",
        f"{EXAMPLE};parameter=1",
    ],
)
def test_digest_is_read_from_among_others(header: str) -> None:
    assert sha256_of(header) == SHA256


@pytest.mark.parametrize("header", [None, "", "sha-512=:AAAA:", "md5=:AAAA:"])
def test_header_without_sha_256_has_no_digest(header: str | None) -> None:
    assert sha256_of(header) is None


@pytest.mark.parametrize(
    "header", ["sha-256", "sha-256=", "sha-256=:AAAA:", "sha-256=1", EXAMPLE[:-1], EXAMPLE[:-5]]
)
def test_garbled_digest_is_an_error_and_not_none(header: str) -> None:
    with pytest.raises(MalformedDigest, match="not a SHA-256 digest"):
        sha256_of(header)


@given(st.text())
def test_any_header_is_read_or_refused(header: str) -> None:
    try:
        found = sha256_of(header)
    except MalformedDigest:
        return
    assert found is None or len(found) == 32
