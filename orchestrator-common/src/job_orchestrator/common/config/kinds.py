"""Kinds of settings: each converts the text of a setting to a typed value, or says what is allowed.

Every ``parse`` gets a text that is not empty and has no surrounding blanks, and raises
``NotAllowed`` if the text is not a value of the kind.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar
from urllib.parse import urlsplit

from job_orchestrator.common.config.units import parse_size_bytes, size_text
from job_orchestrator.common.protocol.durations import parse_duration_s

T = TypeVar("T")
W = TypeVar("W", bound=str)
T_co = TypeVar("T_co", covariant=True)

MIN_SECRET = 16
"""Characters. A shorter secret could be guessed."""

_ON = frozenset({"1", "yes", "true", "on"})
_OFF = frozenset({"0", "no", "false", "off"})
_HOST_PATTERN = re.compile(r"[a-z0-9._*:-]+")
_VISIBLE_ASCII = re.compile(r"[!-~]+")


class NotAllowed(ValueError):
    """A text that is not a value of a kind. ``allowed`` completes "it must be …"."""

    def __init__(self, allowed: str) -> None:
        super().__init__(allowed)
        self.allowed = allowed


class Kind(ABC, Generic[T_co]):
    """Conversion of the text of a setting to a value of type ``T_co``.

    ``metavar`` stands for the value in ``--help``.
    """

    metavar: ClassVar[str] = "TEXT"

    @abstractmethod
    def parse(self, text: str) -> T_co:
        """Convert ``text``. Raises ``NotAllowed``."""


@dataclass(frozen=True)
class Text(Kind[str]):
    """Any text."""

    def parse(self, text: str) -> str:
        """Return the text as it is."""
        return text


@dataclass(frozen=True)
class Secret(Kind[str]):
    """A token or a key."""

    def parse(self, text: str) -> str:
        """Return a text that is long enough and can be sent in an HTTP header."""
        if len(text) >= MIN_SECRET and _VISIBLE_ASCII.fullmatch(text):
            return text
        raise NotAllowed(
            f"at least {MIN_SECRET} letters, digits and signs, such as openssl rand -hex 32 gives"
        )


@dataclass(frozen=True)
class Integer(Kind[int]):
    """A whole number within bounds, both included."""

    minimum: int
    maximum: int
    metavar = "NUMBER"

    def parse(self, text: str) -> int:
        """Convert decimal digits."""
        try:
            number = int(text)
        except ValueError:
            number = self.minimum - 1
        if not self.minimum <= number <= self.maximum:
            raise NotAllowed(f"a whole number from {self.minimum} to {self.maximum}")
        return number


@dataclass(frozen=True)
class Number(Kind[float]):
    """A number from 0 to a maximum, included."""

    maximum: float
    metavar = "NUMBER"

    def parse(self, text: str) -> float:
        """Convert digits with an optional fraction."""
        if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) > self.maximum:
            raise NotAllowed(f"a number from 0 to {self.maximum:g}")
        return float(text)


@dataclass(frozen=True)
class Duration(Kind[float]):
    """A time in seconds, from a number with an optional unit: ``90``, ``30s``, ``5m``, ``48h``."""

    metavar = "TIME"

    def parse(self, text: str) -> float:
        """Convert to seconds."""
        seconds = parse_duration_s(text)
        if seconds is None:
            raise NotAllowed("a time: seconds, or a number with s, m, h or d, such as 48h")
        return seconds


@dataclass(frozen=True)
class Size(Kind[int]):
    """A size in bytes, from a number with an optional unit: ``1000``, ``400MB``, ``10GiB``.

    It is at least ``minimum``; 0 is allowed as well if ``zero`` is true. A ``maximum`` of 0 stands
    for any size.
    """

    minimum: int = 0
    zero: bool = True
    maximum: int = 0
    metavar = "SIZE"

    def parse(self, text: str) -> int:
        """Convert to bytes."""
        size = parse_size_bytes(text)
        if size is None:
            raise NotAllowed("a size: bytes, or a number with kB, MB, GB, MiB or GiB")
        if size < self.minimum and (size > 0 or not self.zero):
            alternative = ", or 0" if self.zero else ""
            raise NotAllowed(f"at least {size_text(self.minimum)}{alternative}")
        if self.maximum and size > self.maximum:
            raise NotAllowed(f"at most {size_text(self.maximum)}")
        return size


@dataclass(frozen=True)
class FilePath(Kind[Path]):
    """A path of the file system."""

    metavar = "PATH"

    def parse(self, text: str) -> Path:
        """Make the path absolute, so that it survives a change of the working directory."""
        try:
            return Path(text).expanduser().absolute()
        except RuntimeError as error:
            raise NotAllowed("a path; the user after ~ has no home folder here") from error


@dataclass(frozen=True)
class Switch(Kind[bool]):
    """On or off: ``1``/``0``, ``yes``/``no``, ``true``/``false``, ``on``/``off``."""

    metavar = "0|1"

    def parse(self, text: str) -> bool:
        """Convert one of the words, in any case."""
        if text.lower() not in _ON | _OFF:
            raise NotAllowed("1 (on) or 0 (off)")
        return text.lower() in _ON


@dataclass(frozen=True)
class Choice(Kind[T]):
    """One of several words, in any case; each stands for a value."""

    values: Mapping[str, T]
    metavar = "WORD"

    def parse(self, text: str) -> T:
        """Return the value of the word."""
        for word, value in self.values.items():
            if text.lower() == word.lower():
                return value
        raise NotAllowed("one of " + ", ".join(self.values))


def one_of(*words: W) -> Choice[W]:
    """Make the kind of a word that stands for itself."""
    return Choice({word: word for word in words})


@dataclass(frozen=True)
class Urls(Kind[tuple[str, ...]]):
    """HTTP URLs, separated by commas."""

    metavar = "URL,…"

    def parse(self, text: str) -> tuple[str, ...]:
        """Split the list, without slashes at the end of each URL."""
        urls = tuple(url.strip().rstrip("/") for url in text.split(","))
        if not all(_is_http_url(url) for url in urls):
            raise NotAllowed("an http:// or https:// URL, or several separated by commas")
        return urls


@dataclass(frozen=True)
class HostPatterns(Kind[tuple[str, ...]]):
    """Host names, in which ``*`` stands for any characters, separated by commas."""

    metavar = "HOST,…"

    def parse(self, text: str) -> tuple[str, ...]:
        """Split the list, in lower case."""
        patterns = tuple(part.strip() for part in text.lower().split(",") if part.strip())
        if not all(_HOST_PATTERN.fullmatch(pattern) for pattern in patterns):
            raise NotAllowed("hosts such as portal.example.org or *.example.org, not URLs")
        return patterns


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # Reading the port raises ValueError if it is not a port number.
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port or 1) > 0
            and not (parts.query or parts.fragment)
        )
    except ValueError:
        return False
