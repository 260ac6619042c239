"""Typed readers for settings, and the command-line flags that go with them.

A setting is an environment variable or its flag (``--max-age`` for ``MAX_AGE``; the flag wins).
Whatever is wrong with one is a ``SettingError``: one line that names the setting, what it held and
what it may hold. Only this module and the two ``settings`` modules know where values come from.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from job_orchestrator.common.errors import StartupError

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SHOWN = (("GB", 10**9), ("GiB", 2**30), ("MB", 10**6), ("MiB", 2**20), ("kB", 10**3), ("B", 1))
_TOO_MUCH = 1e18
_NUMBER_WITH_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


_NEAR = 0.86

_ON = frozenset({"1", "yes", "true", "on"})
_OFF = frozenset({"0", "no", "false", "off"})
_VISIBLE_ASCII = re.compile(r"[!-~]+")

MIN_SECRET = 16
"""Characters: less could be guessed."""


class SettingError(StartupError):
    """A setting that can't be used."""

    def __init__(self, source: str, held: str | None, allowed: str) -> None:
        what = "is not set" if held is None else f"is {held!r}"
        super().__init__(f"{source} {what}; it must be {allowed}")


class SecretError(SettingError):
    """A secret that can't be used; it is not repeated."""

    def __init__(self, source: str, allowed: str) -> None:
        StartupError.__init__(self, f"{source} can't be used; it must be {allowed}")


@dataclass(frozen=True)
class Option:
    """A setting of a service, as its ``--help`` and the documentation list it.

    A ``secret`` has no flag: everybody on a machine sees the command lines of its processes.
    """

    name: str
    default: str
    help: str
    secret: bool = False

    @property
    def flag(self) -> str:
        """The command-line flag of the variable."""
        return "--" + self.name.lower().replace("_", "-")


def with_flags(options: Sequence[Option]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a click command so that each option's flag arrives as a keyword, None if absent."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([option for option in options if not option.secret]):
            text = f"{option.help} [env {option.name}; default {option.default}]"
            command = click.option(option.flag, option.name, metavar="VALUE", help=text)(command)
        return command

    return decorate


def size_text(size_bytes: int) -> str:
    """A size as people write it, exact: ``2 GB``, ``1536 MiB``."""
    unit, factor = next((u, f) for u, f in _SHOWN if size_bytes % f == 0)
    return f"{size_bytes // factor} {unit}"


def on_and_off(features: Mapping[str, bool]) -> str:
    """A line for the log that says which features are on."""
    on = [name for name, is_on in features.items() if is_on]
    off = [name for name, is_on in features.items() if not is_on]
    return f"On: {', '.join(on) or 'nothing'}. Off: {', '.join(off) or 'nothing'}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Which of ``known`` was meant by ``name``, if it is one but for a letter or two."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)), None)


def nearly_settings(environment: Mapping[str, str], options: Sequence[Option]) -> Iterator[str]:
    """Variables that would be settings but for a letter or two, and what to say of them.

    An environment holds much that is no business of ours: it is no error, only a warning.
    """
    known = {option.name for option in options}
    for variable in sorted(environment.keys() - known):
        if "_" in variable and (meant := nearest(variable, known)):
            yield f"{variable} is ignored; did you mean {meant}?"


def duration_of(text: str) -> float | None:
    """Seconds that ``text`` names, a number with an optional unit; None if it is no such thing."""
    return _number_with_unit(text, _SECONDS)


def _number_with_unit(text: str, units: Mapping[str, float]) -> float | None:
    match = _NUMBER_WITH_UNIT.fullmatch(text)
    if match is None or match[2].lower() not in units:
        return None
    number = float(match[1]) * units[match[2].lower()]
    return number if number < _TOO_MUCH else None


class SettingsReader:
    """Reads single settings from flags and environment. Every reader raises ``SettingError``."""

    def __init__(self, environment: Mapping[str, str], flags: Mapping[str, str | None]) -> None:
        self.environment = environment
        self._flags = {name: value for name, value in flags.items() if value is not None}

    def text(self, name: str) -> str | None:
        """The raw value without surrounding blanks; None where unset or empty."""
        value = self._flags.get(name, self.environment.get(name, "")).strip()
        return value or None

    def secret(self, name: str) -> str | None:
        """A token or key, never repeated in a message; None where unset or empty."""
        held = self.text(name)
        if held is None or (len(held) >= MIN_SECRET and _VISIBLE_ASCII.fullmatch(held)):
            return held
        raise SecretError(
            name,
            f"at least {MIN_SECRET} letters, digits and signs, such as openssl rand -hex 32 gives",
        )

    def integer(self, name: str, default: int, *, minimum: int, maximum: int) -> int:
        """A whole number within the bounds (both included)."""
        held = self.text(name)
        if held is None:
            return default
        try:
            number = int(held)
        except ValueError:
            number = minimum - 1
        if not minimum <= number <= maximum:
            raise self._refused(name, f"a whole number from {minimum} to {maximum}")
        return number

    def number(self, name: str, default: float, *, maximum: float) -> float:
        """A number from 0 to the maximum (included)."""
        held = self.text(name)
        if held is None:
            return default
        if not re.fullmatch(r"\d+(\.\d+)?", held) or float(held) > maximum:
            raise self._refused(name, f"a number from 0 to {maximum:g}")
        return float(held)

    def duration_s(self, name: str, default: float) -> float:
        """Seconds, from a number with an optional unit: ``90``, ``30s``, ``5m``, ``48h``."""
        return self._with_unit(
            name, default, _SECONDS, "a time: seconds, or a number with s, m, h or d, such as 48h"
        )

    def size_bytes(self, name: str, default: int, *, least: int = 0, zero: bool = True) -> int:
        """Bytes, from a number with an optional unit: ``1000``, ``400MB``, ``10GiB``.

        At least ``least``, or 0 where ``zero`` means something.
        """
        allowed = "a size: bytes, or a number with kB, MB, GB, MiB or GiB"
        size = int(self._with_unit(name, default, _BYTES, allowed))
        if size < least and (size > 0 or not zero):
            raise self._refused(name, f"at least {size_text(least)}" + (", or 0" if zero else ""))
        return size

    def path(self, name: str, default: str) -> Path:
        """A path of the file system, made absolute so that it survives a change of folder."""
        try:
            return Path(self.text(name) or default).expanduser().absolute()
        except RuntimeError as error:
            raise self._refused(name, "a path; nobody's home folder is known by that ~") from error

    def switch(self, name: str, default: bool) -> bool:
        """On or off: ``1``/``0``, ``yes``/``no``, ``true``/``false``, ``on``/``off``."""
        held = self.text(name)
        if held is None:
            return default
        if held.lower() in _ON or held.lower() in _OFF:
            return held.lower() in _ON
        raise self._refused(name, "1 (on) or 0 (off)")

    def choice(self, name: str, default: str, allowed: Sequence[str]) -> str:
        """One of ``allowed``, in any case; returned as written there."""
        held = self.text(name)
        if held is None:
            return default
        for value in allowed:
            if held.lower() == value.lower():
                return value
        raise self._refused(name, "one of " + ", ".join(allowed))

    def urls(self, name: str) -> tuple[str, ...]:
        """One http(s) URL or several, comma-separated, without trailing slashes; () where unset."""
        held = self.text(name)
        if held is None:
            return ()
        urls = tuple(url.strip().rstrip("/") for url in held.split(","))
        if not all(_is_http_url(url) for url in urls):
            raise self._refused(name, "an http:// or https:// URL, or several separated by commas")
        return urls

    def _with_unit(
        self, name: str, default: float, units: Mapping[str, float], allowed: str
    ) -> float:
        held = self.text(name)
        if held is None:
            return default
        number = _number_with_unit(held, units)
        if number is None:
            raise self._refused(name, allowed)
        return number

    def _refused(self, name: str, allowed: str) -> SettingError:
        source = Option(name, "", "").flag if name in self._flags else name
        return SettingError(source, self.text(name), allowed)


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port or 1) > 0
            and not (parts.query or parts.fragment)
        )
    except ValueError:
        return False
