"""Declarations of settings: name, kind, default and help of each, once.

A service declares its settings as the fields of a frozen dataclass::

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        max_age_s: float = setting(
            "MAX_AGE", Duration(), default="48h", help="Time that results are kept"
        )

The values (``SettingsReader``), the command-line flags (``setting_flags``) and the tables of the
documentation (``scripts/settings_tables.py``) are derived from these fields.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, Generic, TypeVar

from job_orchestrator.common.config.kinds import Kind

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_METADATA_KEY = "setting"

_SIMILARITY = 0.86
"""Ratio of ``difflib`` from which on two names differ only by one or two letters."""


@dataclass(frozen=True)
class DefaultInWords(Generic[T_co]):
    """A default that cannot be written as a text of the setting's kind."""

    words: str
    value: Callable[[], T_co]


def no_default(value: T) -> DefaultInWords[T]:
    """Give a setting that is not set ``value``; documentation and ``--help`` say "none"."""
    return DefaultInWords("none", lambda: value)


@dataclass(frozen=True)
class Setting(Generic[T_co]):
    """One setting: an environment variable and its flag, ``--max-age`` for ``MAX_AGE``.

    A ``secret`` has no flag, because every user of a machine sees the command lines of its
    processes, and its value is never repeated in a message.
    """

    name: str
    kind: Kind[T_co]
    default: str | DefaultInWords[T_co]
    help: str
    secret: bool = False

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.lower().replace("_", "-")

    @property
    def default_text(self) -> str:
        """The default for people."""
        return self.default if isinstance(self.default, str) else self.default.words

    def default_value(self) -> T_co:
        """Return the default for the program."""
        if isinstance(self.default, str):
            return self.kind.parse(self.default)
        return self.default.value()


def setting(
    name: str,
    kind: Kind[T],
    *,
    default: str | DefaultInWords[T],
    help: str,
    secret: bool = False,
) -> T:
    """Declare a dataclass field that is a setting. Its default is that of the setting."""
    declared = Setting(name, kind, default, help, secret)
    return field(default_factory=declared.default_value, metadata={_METADATA_KEY: declared})


def group(of: type[T]) -> T:
    """Declare a dataclass field that holds further settings: a dataclass with settings."""
    return field(default_factory=of, metadata={_METADATA_KEY: of})


def setting_fields(of: type) -> Iterator[tuple[str, "Setting[Any] | type"]]:
    """Iterate over the fields of a dataclass that are settings or groups of settings."""
    declared: Field[Any]
    for declared in fields(of):
        if (found := declared.metadata.get(_METADATA_KEY)) is not None:
            yield declared.name, found


def all_settings(of: type) -> tuple[Setting[Any], ...]:
    """List the settings of a dataclass in the order of their declaration, with those of groups."""
    found: list[Setting[Any]] = []
    for _, declared in setting_fields(of):
        found.extend([declared] if isinstance(declared, Setting) else all_settings(declared))
    return tuple(found)


def setting_of(of: type, attribute: str) -> Setting[Any]:
    """Find the declaration of one attribute of a dataclass."""
    found = dict(setting_fields(of))[attribute]
    if not isinstance(found, Setting):
        raise TypeError(f"{attribute} is a group of settings")
    return found


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the name in ``known`` that differs from ``name`` only by one or two letters, if any."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=_SIMILARITY)), None)


def misspelled_variables(
    environment: Mapping[str, str], settings: Iterable[Setting[Any]]
) -> Iterator[str]:
    """Warn of environment variables whose names are almost those of settings.

    They are not errors: an environment holds many variables of other programs.
    """
    settings = tuple(settings)
    known = {setting.name for setting in settings}
    known |= {f"{setting.name}_FILE" for setting in settings if setting.secret}
    for variable in sorted(environment.keys() - known):
        if "_" in variable and (meant := nearest(variable, known)):
            yield f"{variable} is ignored; did you mean {meant}?"
