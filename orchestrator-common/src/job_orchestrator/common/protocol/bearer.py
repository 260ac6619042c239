"""Bearer tokens of HTTP requests (RFC 6750)."""

import hmac


def authorization_header(token: str) -> str:
    """The Authorization header that shows ``token``."""
    return f"Bearer {token}"


def bearer_token(header: str | None) -> str | None:
    """The token that an Authorization header shows; None if it shows none."""
    scheme, _, token = (header or "").strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def tokens_equal(shown: str, expected: str) -> bool:
    """Compare in a time that tells nothing of where they differ."""
    return hmac.compare_digest(_bytes(shown), _bytes(expected))


def _bytes(token: str) -> bytes:
    # Headers may hold bytes that are no UTF-8; they arrive as lone surrogates.
    return token.encode("utf-8", "surrogateescape")
