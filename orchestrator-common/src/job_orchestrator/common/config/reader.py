"""Reads declared settings from command-line flags and environment variables; flags win.

A secret has no flag. It may also be in the file that the variable ``<NAME>_FILE`` names, or in a
credential of systemd with the name of the setting: other programs of the same user can't see it in
the environment of the process, and its child processes don't inherit it.

A setting that cannot be used is a ``SettingError``: one line that names the variable or flag, its
value and what is allowed.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, TypeVar

from job_orchestrator.common.config.kinds import NotAllowed
from job_orchestrator.common.config.settings import Setting, setting_fields
from job_orchestrator.common.errors import StartupError

T = TypeVar("T")

FILE_SUFFIX = "_FILE"
"""End of the variable that names the file of a secret."""

MAX_SECRET_BYTES = 1 << 16


class SettingError(StartupError):
    """A setting that cannot be used. ``source`` is its variable or flag."""

    def __init__(self, source: str, value: str | None, allowed: str) -> None:
        problem = "is not set" if value is None else f"is {value!r}"
        super().__init__(f"{source} {problem}; it must be {allowed}")


class SecretError(SettingError):
    """A secret that cannot be used. The message does not repeat it."""

    def __init__(self, source: str, allowed: str) -> None:
        StartupError.__init__(self, f"{source} can't be used; it must be {allowed}")


def remove_secrets(environment: MutableMapping[str, str], settings: Iterable[Setting[Any]]) -> None:
    """Remove the secrets from the environment, so that no child process inherits them."""
    for setting in settings:
        if setting.secret:
            environment.pop(setting.name, None)


class SettingsReader:
    """Reads settings. ``flags`` maps names of settings to the values of their flags, if given."""

    def __init__(self, environment: Mapping[str, str], flags: Mapping[str, str | None]) -> None:
        self.environment = environment
        self._flags = {name: value for name, value in flags.items() if value is not None}

    def text(self, name: str) -> str | None:
        """Return the text of a setting without surrounding blanks; None if unset or empty."""
        value = self._flags.get(name, self.environment.get(name, "")).strip()
        return value or None

    def read(self, setting: Setting[T], prefix: str = "") -> T:
        """Read one setting, whose variable has ``prefix``. Raises ``SettingError``."""
        text = self.text(prefix + setting.name)
        if setting.secret and (path := self._secret_file(setting, text)) is not None:
            return self._read_file(setting, path)
        if text is None:
            return setting.default_value()
        try:
            return setting.kind.parse(text)
        except NotAllowed as error:
            raise self.refusal(setting, error.allowed, prefix) from error

    def read_all(self, of: type[T], prefix: str = "", **others: Any) -> T:
        """Read all settings of a dataclass; ``others`` are its other fields.

        Raises ``SettingError`` for the first setting that cannot be used.
        """
        values = {
            name: self.read(declared, prefix)
            if isinstance(declared, Setting)
            else self.read_all(declared, prefix)
            for name, declared in setting_fields(of)
        }
        return of(**values, **others)

    def _secret_file(self, setting: Setting[Any], text: str | None) -> tuple[str, Path] | None:
        """Return the source and the path of a secret that is in a file; None if it is not.

        Raises ``SettingError`` if the secret is given twice.
        """
        source = f"{setting.name}{FILE_SUFFIX}"
        named = self.text(source)
        if named is not None and text is not None:
            raise SettingError(source, named, f"unset, because {setting.name} is set as well")
        if named is not None:
            return source, Path(named).expanduser()
        credentials = self.text("CREDENTIALS_DIRECTORY")
        if text is None and credentials is not None:
            path = Path(credentials, setting.name)
            if path.is_file():
                return f"The credential {setting.name}", path
        return None

    def _read_file(self, setting: Setting[T], found: tuple[str, Path]) -> T:
        source, path = found
        try:
            with path.open("rb") as file:
                content = file.read(MAX_SECRET_BYTES)
            return setting.kind.parse(content.decode().strip())
        except OSError as error:
            allowed = f"a file that can be read ({error.strerror})"
            raise SettingError(source, str(path), allowed) from error
        except (UnicodeDecodeError, NotAllowed) as error:
            kind = error.allowed if isinstance(error, NotAllowed) else "text"
            raise SecretError(f"{source} is {str(path)!r}, whose content", kind) from error

    def refusal(self, setting: Setting[Any], allowed: str, prefix: str = "") -> SettingError:
        """Make the error that says what the setting holds and what is allowed."""
        name = prefix + setting.name
        source = setting.flag if name in self._flags else name
        text = self.text(name)
        if setting.secret and text is not None:
            return SecretError(source, allowed)
        return SettingError(source, text, allowed)
