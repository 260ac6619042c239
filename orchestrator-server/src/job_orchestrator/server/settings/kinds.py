"""Kinds of values that only settings of jo-server have."""

import base64
from dataclasses import dataclass
from urllib.parse import urlsplit

from job_orchestrator.common.config.kinds import Kind, NotAllowed, Secret, Urls

_SECRET_PREFIX = "whsec_"  # noqa: S105 (a prefix)


@dataclass(frozen=True)
class Origins(Kind[frozenset[str]]):
    """Origins of web pages, separated by commas; or ``*`` for all."""

    metavar = "ORIGIN,…"

    def parse(self, text: str) -> frozenset[str]:
        """Convert to origins as browsers send them: in lower case and without a path."""
        if text == "*":
            return frozenset({"*"})
        try:
            urls = Urls().parse(text)
        except NotAllowed:
            urls = ()
        if not urls or any(
            urlsplit(url).path or urlsplit(url).username is not None for url in urls
        ):
            raise NotAllowed(
                "*, or origins such as https://portal.example.org, separated by commas"
            )
        return frozenset(url.lower() for url in urls)


@dataclass(frozen=True)
class Names(Kind[frozenset[str]]):
    """Names without commas, separated by commas."""

    metavar = "NAME,…"

    def parse(self, text: str) -> frozenset[str]:
        """Split the list."""
        names = frozenset(name.strip() for name in text.split(","))
        if not all(name and name.isprintable() for name in names):
            raise NotAllowed("names, separated by commas")
        return names


@dataclass(frozen=True)
class Word(Kind[str]):
    """One printable word."""

    metavar = "NAME"

    def parse(self, text: str) -> str:
        """Return the word."""
        if not text.isprintable() or not text.strip():
            raise NotAllowed("a name")
        return text.strip()


@dataclass(frozen=True)
class SigningKey(Kind[bytes]):
    """A key for signatures: a secret, or base64 after ``whsec_``."""

    def parse(self, text: str) -> bytes:
        """Convert to the bytes of the key."""
        secret = Secret().parse(text)
        if not secret.startswith(_SECRET_PREFIX):
            return secret.encode()
        try:
            return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except ValueError as error:
            raise NotAllowed("whsec_ and base64, or a secret without whsec_") from error
