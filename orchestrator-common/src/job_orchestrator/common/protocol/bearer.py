"""Bearer tokens of HTTP requests (RFC 6750)."""

import hmac


def authorization_header(token: str) -> str:
    """Return the value of the Authorization header for ``token``."""
    return f"Bearer {token}"


def bearer_token(header: str | None) -> str | None:
    """Return the token in an Authorization header, or None."""
    scheme, _, token = (header or "").strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def tokens_equal(received: str, expected: str) -> bool:
    """Compare two tokens in a time that does not depend on where they differ."""
    return hmac.compare_digest(_bytes(received), _bytes(expected))


def _bytes(token: str) -> bytes:
    # Headers may hold bytes that are not UTF-8; they arrive as lone surrogates.
    return token.encode("utf-8", "surrogateescape")
