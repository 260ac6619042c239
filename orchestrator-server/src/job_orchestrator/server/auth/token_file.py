"""The file of API tokens: hashes, written by ``jo-server token``.

A token is 256 random bits, shown once. The file holds its SHA-256. Unlike a password, a random
token can't be guessed from its hash, so a slow salted hash would protect nothing and would cost a
tenth of a second for each request. A look-up by hash reveals nothing through its timing, because
nobody can choose the first bytes of a hash.

The functions block: call them in a thread.
"""

import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from job_orchestrator.common.errors import DomainError
from job_orchestrator.common.storage.durable import write_durably
from job_orchestrator.server.model import MIN_USER_ID

PREFIX = "jo_"
"""Prefix by which secret scanners find tokens that were committed to a repository."""

_RANDOM_BYTES = 32
_MODE = 0o600
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class TokenFileUnusable(DomainError):
    """The file can't be used: it can't be read or written, is invalid, or others may write it."""


class TokenNotFound(DomainError):
    """The file has no token with this id."""


NOBODY = MIN_USER_ID - 1
"""The ``user_id`` of tokens of clients: no user has it, for versions that know no such tokens."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """Record of a token. ``user_id`` None: an administrator's. ``id`` is not secret.

    ``services`` are those of a client's token (None: the token of a user or an administrator), and
    ``uses`` is how many clients may use it (None: any number).
    """

    id: str
    sha256: str
    user_id: int | None
    label: str
    created_at: datetime
    expires_at: datetime | None = None
    services: tuple[str, ...] | None = None
    uses: int | None = None

    def has_expired(self, now: float) -> bool:
        """Return whether the token has expired at ``now`` (seconds since the epoch)."""
        return self.expires_at is not None and now >= self.expires_at.timestamp()


class _Content(msgspec.Struct, frozen=True):
    tokens: list[Token] = []


def digest(token: str) -> str:
    """Return the hash of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def read_tokens(path: Path) -> list[Token]:
    """Read all tokens. Raises ``TokenFileUnusable``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_mode & _WRITABLE_BY_OTHERS:
                raise TokenFileUnusable(f"{path} can be written by others; run chmod 600 on it")
            content = file.read()
    except OSError as error:
        raise TokenFileUnusable(f"{path} can't be read: {error.strerror}") from error
    if not content:
        return []
    try:
        return msgspec.json.decode(content, type=_Content).tokens
    except msgspec.MsgspecError as error:
        raise TokenFileUnusable(f"{path} was not written by jo-server token: {error}") from error


def create_token(
    path: Path,
    *,
    user_id: int | None,
    label: str,
    valid_s: float | None,
    services: tuple[str, ...] | None = None,
    uses: int | None = None,
) -> tuple[str, Token]:
    """Add a token for a user, or for administrators (None). Return the token and its record.

    With ``services``, it is one for clients that register themselves, for ``uses`` of them.
    Creates the file if it is missing. Raises ``TokenFileUnusable``.
    """
    token = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    now = time.time()
    with _locked(path):
        tokens = read_tokens(path)
        record = Token(
            id=_new_id({known.id for known in tokens}),
            sha256=digest(token),
            user_id=user_id if services is None else NOBODY,
            services=services,
            uses=uses,
            label=label,
            created_at=datetime.fromtimestamp(int(now), UTC),
            expires_at=None if valid_s is None else datetime.fromtimestamp(now + valid_s, UTC),
        )
        _write(path, [*tokens, record])
    return token, record


def revoke_token(path: Path, token_id: str) -> Token:
    """Remove a token. Raises ``TokenNotFound``, ``TokenFileUnusable``."""
    with _locked(path):
        tokens = read_tokens(path)
        revoked = next((token for token in tokens if token.id == token_id), None)
        if revoked is None:
            raise TokenNotFound(f"No token has the id {token_id}; jo-server token list shows all")
        _write(path, [token for token in tokens if token.id != token_id])
    return revoked


def _new_id(taken: set[str]) -> str:
    while (token_id := secrets.token_hex(3)) in taken:
        pass
    return token_id


def _write(path: Path, tokens: list[Token]) -> None:
    content = msgspec.json.format(msgspec.json.encode(_Content(tokens)), indent=2)
    try:
        write_durably(path, content + b"\n", mode=_MODE)
    except OSError as error:
        raise TokenFileUnusable(f"{path} can't be written: {error.strerror}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the file against other commands during the block. Create it if it is missing."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        except OSError as error:
            raise TokenFileUnusable(f"{path} can't be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # A change replaces the file, so the locked file may have been replaced.
            if os.fstat(descriptor).st_ino == _inode(path):
                yield
                return
        finally:
            os.close(descriptor)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return -1
