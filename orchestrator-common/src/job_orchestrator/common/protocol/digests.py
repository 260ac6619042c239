"""Digests of results in the header ``Repr-Digest`` (RFC 9530, a dictionary of RFC 8941)."""

import base64
import binascii
import re

from job_orchestrator.common.errors import DomainError

SHA256_BYTES = 32

_SHA256_MEMBER = re.compile(r"[ \t]*sha-256(?:=(?P<value>[^;]*))?(?:;.*)?[ \t]*", re.ASCII)
_BYTES = re.compile(r":(?P<base64>[A-Za-z0-9+/=]*):[ \t]*", re.ASCII)


class MalformedDigest(DomainError):
    """A header that names SHA-256 and does not hold such a digest."""


def repr_digest(sha256: bytes) -> str:
    """Return the value of ``Repr-Digest`` for a SHA-256 digest."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def sha256_of(header: str | None) -> bytes | None:
    """Return the SHA-256 digest in a ``Repr-Digest``; None if there is none.

    Digests of other algorithms are ignored. Raises ``MalformedDigest``.
    """
    found = None
    for member in (header or "").split(","):
        named = _SHA256_MEMBER.fullmatch(member)
        if named is not None:
            found = _decoded(named["value"] or "")  # the last member of a name counts
    return found


def _decoded(value: str) -> bytes:
    match = _BYTES.fullmatch(value)
    try:
        digest = base64.b64decode(match["base64"], validate=True) if match else b""
    except binascii.Error:
        digest = b""
    if len(digest) != SHA256_BYTES:
        raise MalformedDigest(f"{value[:100]!r} is not a SHA-256 digest")
    return digest
